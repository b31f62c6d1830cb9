"""The labels CSV: one row for each label, on the disk before the annotator shows the next item.

A change writes the whole file beside its place and renames it. A lock on the folder excludes other
writers meanwhile, so two open tabs lose nothing.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import pandas as pd
from filelock import FileLock

from napo.config.variants import BIASED
from napo.errors import NapoError, unknown
from napo.workspace.files import make_folder, read_text, write_text

COLUMNS = ("id", "kind", "label", "annotator", "note", "group")
LABELS = ("biased", "unbiased", "unsure")  # noise-free, noise, undecided
GROUPS = ("", "question", "description", "no-image")  # empty in a person's file
ORACLE = "oracle"  # annotator of the labels that the scenes' truth gives
ADJUDICATED = "adjudicated"  # annotator of the decisions on disputed items
RESERVED = (ADJUDICATED, ORACLE)
LONGEST_NAME, LONGEST_NOTE = 200, 10_000  # bytes of a file's name, characters of a note
ANY: Mapping[str, str] = MappingProxyType({})  # as `expected`: replace any label

_key = itemgetter("id", "kind", "annotator")
_Rows: TypeAlias = dict[tuple[str, ...], dict[str, str]]  # by their key


class LabelledMeanwhile(NapoError):
    """The file holds another label than its writer expects: another tab has changed it."""


def read_labels(path: Path) -> pd.DataFrame:
    """Labels of a file, in the order in which they were given: the columns `COLUMNS`, all text.

    Raises:
        NapoError: when the file is missing, or a line is not a label, naming file and line.
    """
    if not path.is_file():
        raise NapoError(
            f"{path} is missing; label the samples in notebooks/02_annotate_noise.ipynb first."
        )
    return pd.DataFrame(_read(path).values(), columns=list(COLUMNS), dtype=object)


def nfc(name: str) -> str:
    """A name in Unicode's composed form: some keyboards and disks write a letter and its accent."""
    return unicodedata.normalize("NFC", name)


def labels_file(folder: Path, annotator: str) -> Path:
    """The CSV of an annotator; composed letters and their parts (NFC, NFD) are the same name.

    Raises:
        NapoError: when the name cannot be that of a file, or is a reserved one in other letters,
            which some file systems take for the same file.
    """
    annotator = nfc(annotator)
    if annotator not in RESERVED and annotator.casefold() in RESERVED:
        raise NapoError(f"The annotator is {annotator!r}; {annotator.casefold()} is reserved.")
    letters = all(c in "_ .@+-" or unicodedata.category(c)[0] in "LMN" for c in annotator)
    plain = letters and annotator == " ".join(annotator.split())
    if not plain or annotator[:1] in ("", *" .@+-") or len(annotator.encode()) > LONGEST_NAME:
        raise NapoError(
            f"The annotator is {annotator[:60]!r}; give a name of letters, digits, single spaces "
            f"and _ . @ + - only, {LONGEST_NAME} bytes at most: it names the file of the labels."
        )
    return folder / f"{annotator}.csv"


def write_labels(path: Path, labels: pd.DataFrame) -> None:
    """Write a whole labels file."""
    checked = [check_label(row, path) for row in labels.to_dict("records")]
    with _changed(path) as rows:
        rows.clear()
        rows.update((_key(row), row) for row in checked)


def store_label(
    path: Path, label: Mapping[str, str], expected: Mapping[str, str] | None = ANY
) -> None:
    """Store one label; on return it is on the disk.

    Args:
        path: the CSV; it is made if it is missing.
        label: it replaces the label of the same id, kind and annotator.
        expected: the label that the file holds now, as the caller last saw it; None for no label.

    Raises:
        LabelledMeanwhile: when the file holds another label than `expected`; nothing is stored.
        NapoError: when `label` is no label, or the file is damaged.
    """
    row = check_label(label, path)
    with _changed(path) as rows:
        _compare(rows.get(_key(row)), expected)
        rows[_key(row)] = row


def remove_label(
    path: Path, id: str, kind: str, annotator: str, expected: Mapping[str, str] | None = ANY
) -> None:
    """Withdraw one label, as `store_label` stores it. A label that is not there is no error."""
    with _changed(path) as rows:
        label = rows.pop((id, kind, annotator), None)
        if label:
            _compare(label, expected)


def check_label(row: Mapping[str, str], where: object) -> dict[str, str]:
    """The row with all columns, each on one line.

    Raises:
        NapoError: when it is no label, naming `where`: file, and line if known.
    """
    label = {}
    for name in COLUMNS:
        value = row.get(name)
        missing = value is None or value != value  # NaN in a data frame
        label[name] = "" if missing else " ".join(str(value).replace("\0", "").split())
    for name, known in (("kind", BIASED), ("label", LABELS), ("group", GROUPS)):
        if label[name] not in known:
            raise NapoError(f"{where}: {unknown(name, label[name], filter(None, known))}")
    for name in ("id", "annotator"):
        if not label[name]:
            raise NapoError(f"{where}: the {name} is empty; every label needs one.")
    if len(label["note"]) > LONGEST_NOTE:
        raise NapoError(
            f"{where}: the note has {len(label['note'])} characters; keep it to {LONGEST_NOTE}."
        )
    return label


def _compare(current: Mapping[str, str] | None, expected: Mapping[str, str] | None) -> None:
    """Refuse to replace a label that another writer has changed or withdrawn."""
    if expected is ANY or current == expected:
        return
    if current is None:
        raise LabelledMeanwhile("Another tab has taken back this label; label the item again.")
    note = f" (note: {current['note']})" if current["note"] else ""
    raise LabelledMeanwhile(
        f"Another tab has labelled this item {current['label']}{note}, which is kept; label it "
        "again to change that."
    )


@contextmanager
def _changed(path: Path) -> Iterator[_Rows]:
    """Give the rows of a file under its folder's lock, and write them if the block changes them.

    The lock is a file of its own: a rename would leave a lock on the labels on the old file.
    """
    make_folder(path.parent)
    with FileLock(path.parent / ".labels.lock"):
        rows = _read(path)
        before = list(rows.values())
        yield rows
        if list(rows.values()) != before:
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
            write_text(path, text.getvalue())


def _read(path: Path) -> _Rows:
    """Checked rows of a file in their order; none if it is missing."""
    if not path.is_file():
        return {}
    text = read_text(path, "save it again as CSV in UTF-8")
    lines = csv.reader(io.StringIO(text, newline=None))
    rows: _Rows = {}
    header: list[str] = []
    try:
        for cells in lines:
            where = f"{path}, line {lines.line_num}"
            if not header:
                header = cells
                known = {"id", "kind", "label", "annotator"} <= set(header) <= set(COLUMNS)
                if not known or len(set(header)) < len(header):
                    raise NapoError(
                        f"{path}: the first line is {', '.join(header)[:200]!r}; it must name "
                        f"{', '.join(COLUMNS)}, each once and nothing else, with commas between."
                    )
            elif any(cells):  # a spreadsheet writes an empty row as commas
                if len(cells) != len(header):
                    raise NapoError(
                        f"{where} has {len(cells)} fields, not {len(header)}; correct it."
                    )
                row = check_label(dict(zip(header, cells, strict=True)), where)
                if _key(row) in rows:
                    raise NapoError(
                        f"{where} labels {row['id']} ({row['kind']}) again; keep one of them."
                    )
                rows[_key(row)] = row
    except csv.Error as error:
        raise NapoError(f"{path}, line {lines.line_num}: {error}; correct it.") from None
    return rows
