"""The labels CSV: one line for each judged response, on the disk before the next one is asked for.

A new label is appended and flushed; a changed or withdrawn one rewrites the file beside its place
and renames it. Writers of one folder exclude each other, so two open tabs lose nothing.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from filelock import FileLock

from napo.config.variants import BIASED
from napo.errors import NapoError, unknown
from napo.workspace.files import append, atomic_file, make_folder

COLUMNS = ("id", "kind", "label", "annotator", "note", "group")
LABELS = ("biased", "unbiased", "unsure")  # noise-free, noise, undecided
GROUPS = ("", "question", "description", "no-image")  # empty: a person was not asked
ORACLE = "oracle"  # the annotator's name that stands for the scenes' truth
ADJUDICATED = "adjudicated"  # and the one for what holds after disagreements were settled
RESERVED = (ORACLE, ADJUDICATED)
LONGEST_NAME, LONGEST_NOTE = 200, 10_000  # bytes of a file's name, characters of a note
_KEY = ("id", "kind", "annotator")
_WHATEVER: Mapping[str, str] = MappingProxyType({})  # no condition on what is there


class LabelledMeanwhile(NapoError):
    """What the file holds is not what its writer saw: another tab has labelled it since."""


def read_labels(path: Path) -> pd.DataFrame:
    """Labels of a file, in the order they were given.

    A last line without its end that is no whole label is what an interrupted write left; it is
    passed over.

    Returns:
        Columns `id`, `kind`, `label`, `annotator`, `note`, `group`, all text; one row for each id,
        kind and annotator.

    Raises:
        NapoError: when the file is missing, or a line is not a label, naming file and line.
    """
    path = Path(path)
    if not path.is_file():
        raise NapoError(
            f"{path} is missing; label the samples in notebooks/02_annotate_noise.ipynb first."
        )
    return pd.DataFrame(_read(path), columns=list(COLUMNS), dtype=object)


def composed(name: str) -> str:
    """A name in one of its spellings: some keyboards and disks write a letter and its accent."""
    return unicodedata.normalize("NFC", name)


def in_a_name(character: str) -> bool:
    """Whether a name may hold it: letters, their marks and digits of any script, and `_ .@+-`."""
    return character in "_ .@+-" or unicodedata.category(character)[0] in "LMN"


def labels_file(folder: Path, annotator: str) -> Path:
    """The CSV of an annotator, composed letters and their parts (NFC, NFD) being the same name.

    Raises:
        NapoError: when the name cannot be that of a file, or is a reserved one in other letters,
            which some file systems take for the same file.
    """
    annotator = composed(annotator)
    if annotator not in RESERVED and annotator.casefold() in RESERVED:
        raise NapoError(f"The annotator is {annotator!r}; {annotator.casefold()} is reserved.")
    plain = annotator == _one_line(annotator) and all(map(in_a_name, annotator))
    if not plain or annotator[:1] in ("", *" .@+-") or len(annotator.encode()) > LONGEST_NAME:
        raise NapoError(
            f"The annotator is {annotator[:60]!r}; give a name of letters, digits, single spaces "
            f"and . @ + - only, {LONGEST_NAME} at most: it names the file of the labels."
        )
    return folder / f"{annotator}.csv"


def write_labels(path: Path, labels: pd.DataFrame) -> None:
    """Write a whole labels file, atomically.

    Raises:
        NapoError: when a row is no label.
    """
    rows = [_checked(row, path) for row in labels.to_dict("records")]
    with _alone(Path(path)):
        _rewrite(Path(path), rows)


def store_label(
    path: Path, label: Mapping[str, str], seen: Mapping[str, str] | None = _WHATEVER
) -> None:
    """Keep one label; on return it is on the disk.

    Args:
        path: the CSV; it is made if it is missing.
        label: `id`, `kind`, `label`, `annotator`, and if wanted `note` and `group`. A label that
            is already there for the same id, kind and annotator is replaced.
        seen: columns that the label already there must have, None: that there is none; if not
            given, whatever is there is replaced.

    Raises:
        LabelledMeanwhile: when something else is there than was seen; nothing is stored.
        NapoError: when it is no label, or the file is damaged.
    """
    path, new = Path(path), _checked(label, path)
    with _alone(path):
        there = _read(path) if path.is_file() else []
        same = [at for at, row in enumerate(there) if _key(row) == _key(new)]
        _expect(seen, there[same[0]] if same else None)
        if there and not same and _ends_whole(path):
            append(path, _line(new).encode())
        else:
            if same:
                there[same[0]] = new
            _rewrite(path, there if same else [*there, new])


def remove_label(
    path: Path,
    id: str,
    kind: str,
    annotator: str,
    seen: Mapping[str, str] | None = _WHATEVER,
) -> None:
    """Withdraw one label; on return it is off the disk. One that is not there is no error.

    Raises:
        LabelledMeanwhile: when something else is there than was `seen`; see `store_label`.
    """
    path = Path(path)
    with _alone(path):
        there = _read(path) if path.is_file() else []
        mine = [row for row in there if _key(row) == (id, kind, annotator)]
        if mine:
            _expect(seen, mine[0])
            _rewrite(path, [row for row in there if row not in mine])


def _expect(seen: Mapping[str, str] | None, there: Mapping[str, str] | None) -> None:
    """Refuse to go on where another writer has been since the label was seen."""
    if seen is _WHATEVER:
        return
    if there is None:
        if seen is None:
            return
        raise LabelledMeanwhile("Its label was taken back elsewhere meanwhile; label it again.")
    if seen is None or any(there[name] != value for name, value in seen.items()):
        note = f" (note: {there['note']})" if there["note"] else ""
        raise LabelledMeanwhile(
            f"It was labelled {there['label']}{note} elsewhere meanwhile, which is kept; label "
            "it again to change that."
        )


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in _KEY)


def _read(path: Path) -> list[dict[str, str]]:
    """Rows of the file, checked, without a torn last line."""
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise NapoError(f"{path} is not UTF-8 text; save it again as CSV in UTF-8.") from None
    # A spreadsheet's marks: of UTF-8, and of the ends of lines.
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    reader = csv.reader(io.StringIO(text))
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    header: list[str] = []
    while (cells := _next(reader, path)) is not None:
        if not header:
            header = _header(cells, path)
            continue
        if not any(cells):
            continue  # a spreadsheet writes an empty row as commas
        where = f"{path}, line {reader.line_num}"
        try:
            if len(cells) != len(header):
                raise NapoError(f"{where} has {len(cells)} fields, not {len(header)}; correct it.")
            row = _checked(dict(zip(header, cells, strict=True)), where)
        except NapoError:
            if not text.endswith("\n") and reader.line_num >= text.count("\n") + 1:
                break  # torn
            raise
        if _key(row) in rows:
            raise NapoError(f"{where} labels {row['id']} ({row['kind']}) again; keep one of them.")
        rows[_key(row)] = row
    return list(rows.values())


def _next(reader: Any, path: Path) -> list[str] | None:
    """The next line's cells; None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        raise NapoError(f"{path}, line {reader.line_num}: {error}; correct it.") from None


def _header(cells: list[str], path: Path) -> list[str]:
    """The names of the columns, all of them ours: what is not known would be lost."""
    if len(cells) == 1 and cells[0].count(";") >= 3:
        raise NapoError(f"{path} has semicolons; save it with commas between them.")
    if not {"id", "kind", "label", "annotator"} <= set(cells):
        raise NapoError(
            f"{path}: the first line is {', '.join(cells)[:200]!r}; it must name "
            f"{', '.join(COLUMNS)}, with commas between them."
        )
    for at, name in enumerate(cells):
        if name not in COLUMNS or name in cells[:at]:
            raise NapoError(
                f"{path}: the column {name!r} is {'there twice' if name in COLUMNS else 'unknown'}"
                f"; keep {', '.join(COLUMNS)} and nothing else."
            )
    return cells


def _checked(row: Mapping[str, str], where: object) -> dict[str, str]:
    """The row with all columns, or the sentence that says what is wrong with it."""
    full = {name: _one_line(row.get(name, "")) for name in COLUMNS}
    for name, known in (("kind", BIASED), ("label", LABELS), ("group", GROUPS)):
        if full[name] not in known:
            raise NapoError(f"{where}: {unknown(name, full[name], filter(None, known))}")
    for name in ("id", "annotator"):
        if not full[name]:
            raise NapoError(f"{where}: the {name} is empty; every label needs one.")
    if len(full["note"]) > LONGEST_NOTE:
        raise NapoError(
            f"{where}: the note has {len(full['note'])} characters; keep it to {LONGEST_NOTE}."
        )
    return full


def _one_line(value: object) -> str:
    """Text without line breaks and nulls: one label is one line, so a torn one can be seen."""
    text = "" if value is None or value != value else str(value)
    return " ".join(text.replace("\0", "").split())


def _line(row: Mapping[str, str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    return buffer.getvalue()


def _ends_whole(path: Path) -> bool:
    content = path.read_bytes()
    head = (",".join(COLUMNS) + "\n").encode()
    return content.endswith(b"\n") and content.startswith(head)


def _rewrite(path: Path, rows: list[dict[str, str]]) -> None:
    header = ",".join(COLUMNS) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(header + "".join(map(_line, rows)), encoding="utf-8")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the file's folder, so that read-change-write is one step among processes.

    The lock is a file of its own: a rename would leave a lock on the labels on the old ones.
    """
    make_folder(path.parent)
    with FileLock(path.parent / ".labels.lock"):
        yield
