"""Preference rows as they are published: read batch by batch, and checked here.

A source is a folder of Parquet shards with RLAIF-V's columns (images as bytes), with the columns
of the released RLAIF-V-Bias, or of JSONL files beside their images. Rows are numbered through all
files; a batch holds the same rows wherever the files end. Memory holds one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any
from unicodedata import category

from napo.config.variants import BIASED, RESPONSES
from napo.data.source_files import Row, Wanted, blank, encodable, open_files, shown
from napo.errors import NapoError
from napo.workspace.pictures import BadPicture, open_rgb

PLACE = ("file", "folder")  # where a row comes from: beside its columns while it is read
TEXTS = ("question", "chosen", "rejected")
SCORES = tuple(f"{name}_{kind}" for name in RESPONSES for kind in ("logp", "tokens"))
CUTS = tuple(f"{name}_cut" for name in RESPONSES)  # whether the length limit ended the response


class BadRow(NapoError):
    """A row that cannot be used: its id, and why."""


@dataclass
class Survey:
    """The number of rows, and for each row that cannot be used the sentence about it."""

    rows: int = 0
    bad: dict[int, str] = field(default_factory=dict)


def survey(folder: Path, count: int = 0) -> Survey:
    """Check the id and texts of the first `count` rows (0: of all), not their images.

    Raises:
        NapoError: when there are no rows, a file does not open, or a column is missing.
    """
    result, numbers = Survey(), {}
    for number, row in read(folder, count, texts_only=True):
        problem, id = _text_problem(row), row["id"]
        if not problem and id in numbers:
            problem = f"has the id of row number {numbers[id]}; ids must be unique"
        if problem:
            result.bad[number] = f"{row['file']}: row {shown(id)} (number {number}) {problem}."
        numbers.setdefault(id, number)
        result.rows = number + 1
    if not result.rows:
        raise NapoError(f"{folder} holds no rows.")
    return result


def batches(
    folder: Path, size: int, count: int = 0, wanted: Wanted = lambda number: True
) -> Iterator[tuple[int, list[tuple[int, Row]]]]:
    """Numbered batches of numbered rows: `(number of the batch, [(number of the row, row), ...])`.

    Only the first `count` rows (0: all) count, and only the `wanted` batches are read.
    """
    rows = read(folder, count, wanted=lambda number: wanted(number // size))
    for number, batch in groupby(rows, key=lambda numbered: numbered[0] // size):
        yield number, list(batch)


def read(
    folder: Path,
    count: int = 0,
    *,
    texts_only: bool = False,
    wanted: Wanted = lambda number: True,
) -> Iterator[tuple[int, Row]]:
    """Number and content of the wanted rows; each gets a text `id`, and its file and folder."""
    first = 0
    for file in open_files(folder):
        for number, row in file.rows(first, wanted, texts_only):
            if count and number >= count:
                return
            names = (row.get("id"), row.get("idx"), f"{file.path.stem}-{number - first}")
            id = str(next(name for name in names if name is not None))
            yield number, {**row, "id": id, "file": file.path.name, "folder": str(file.path.parent)}
        first += file.count


def texts(folder: Path) -> Iterator[Row]:
    """The rows of a source without their images."""
    return (row for _, row in read(folder, texts_only=True))


def number_of_rows(folder: Path, count: int = 0) -> int:
    """Number of rows of a source, or of its first `count`, without reading them."""
    total = sum(file.count for file in open_files(folder))
    return min(count, total) if count else total


def files(folder: Path) -> list[Path]:
    """Every file that a source's rows come from: its Parquet or JSONL, and the images named there.

    Images that are missing, or outside the folder, are left to the reading of the rows.
    """
    paths, images, root = [file.path for file in open_files(folder)], set(), Path(folder).resolve()
    for _, row in read(folder) if paths[0].suffix == ".jsonl" else ():
        image = row["image"]
        name = image.get("path") if isinstance(image, Mapping) else image
        with suppress(BadPicture):
            images.add(Path(folder) / _image_file(row, name).relative_to(root))
    return [*paths, *sorted(images)]


def with_bytes(row: Mapping[str, Any]) -> Row:
    """The row with its image as the bytes it came in, `{"bytes", "path"}`; BadRow without one."""
    image = row["image"]
    if not isinstance(image, Mapping):
        image = {"bytes" if isinstance(image, bytes) else "path": image}
    content, name = image.get("bytes"), image.get("path")
    try:
        if not isinstance(content, bytes | None):
            raise BadPicture("its bytes are no bytes")
        content = content or _image_file(row, name).read_bytes()
    except (BadPicture, OSError) as problem:
        raise _bad_image(row, problem) from None
    return {**row, "image": {"bytes": content, "path": name}}


def decode(row: Mapping[str, Any]) -> Row:
    """The row with its image as a PIL RGB image; BadRow if it cannot be used."""
    row = with_bytes(row)
    try:
        return {**row, "image": open_rgb(row["image"]["bytes"])}
    except BadPicture as problem:
        raise _bad_image(row, problem) from None


def _bad_image(row: Mapping[str, Any], problem: Exception) -> BadRow:
    return BadRow(
        f"Row {shown(row['id'])}: its image cannot be used, {problem}; replace or drop the row."
    )


def _image_file(row: Mapping[str, Any], name: Any) -> Path:
    """The file of an image, which must lie in the source's folder."""
    if not name:
        raise BadPicture("it is missing")
    if not isinstance(name, str):
        raise BadPicture("its path is no text")
    if not row.get("folder"):
        raise BadPicture(f"the row names {name!r} and does not hold it")
    root = Path(row["folder"]).resolve()
    try:
        path = (root / name).resolve()
        exists = path.is_file()
    except (OSError, ValueError):  # a null character, a name that is too long
        raise BadPicture(f"its path {name[:60]!r} is none") from None
    if not path.is_relative_to(root):
        raise BadPicture(f"its path {name!r} leaves the folder")
    if not exists:
        raise BadPicture(f"its file {shown(name)!r} is not there")
    return path


def _text_problem(row: Mapping[str, Any]) -> str:
    """Why the id or a text of a row cannot be used; empty if all can."""
    id = row["id"]
    if blank(id) or id != " ".join(id.split()) or any(category(letter) == "Cc" for letter in id):
        return "has an id that is not words with single spaces between them; give another"
    for name in ("id", *TEXTS, *BIASED):
        text = row.get(name)
        if text is not None and not isinstance(text, str):
            return f"has a {name} that is no text"
        if name in TEXTS and blank(text or ""):
            return f"has an empty {name}; write one or drop the row"
        if "\0" in (text or ""):
            return f"has a null character in its {name}; take it out"
    for name in CUTS:
        if row.get(name) not in (None, False, True):
            return f"has a {name} that is neither true nor false; correct it or leave it out"
    for name in SCORES:
        if name in row:
            return f"has a {name}, which scoring adds for the reference; rename or drop that column"
    for name, text in row.items():
        if isinstance(text, str) and text != encodable(text):
            return f"has half a character (a lone surrogate) in its {name}; take it out"
    return ""
