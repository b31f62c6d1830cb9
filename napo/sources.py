"""Preference rows as they are published: read batch by batch, with suspicion.

A source is a folder of Parquet shards with RLAIF-V's columns (images as bytes), with the columns
of the released RLAIF-V-Bias, or of JSONL files beside their images. Rows are numbered through all
files; a batch is the same rows whatever the files' boundaries. Memory holds one batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napo.errors import NapoError
from napo.pictures import BadPicture, open_rgb
from napo.workspace import finished_files

# Names that the released generator and trainer use for the two biased responses.
RELEASED_NAMES = {
    "question_only": "language_biased",
    "question_only_None": "language_biased",
    "image_only": "vision_biased",
}
REQUIRED = ("image", "question", "chosen", "rejected")
PLACE = ("file", "folder")  # where a row comes from: beside its columns while it is read
TEXTS = ("question", "chosen", "rejected")
READ_ROWS = 64  # rows of Parquet decoded at a time


class BadRow(NapoError):
    """A row that cannot be used: its id, and why."""


@dataclass
class Survey:
    """What the texts of a source say before any work starts.

    Attributes:
        rows: number of rows.
        bad: number of each row that cannot be used -> the sentence about it.
    """

    rows: int = 0
    bad: dict[int, str] = field(default_factory=dict)


def survey(folder: Path, count: int = 0) -> Survey:
    """Look at every row's id and texts, not at its image.

    Args:
        folder: the source.
        count: rows used, from the first on; 0: all.

    Raises:
        NapoError: when there are no rows, a file does not open, or a column is missing.
    """
    found, first_seen = Survey(), {}
    for number, row in _rows(folder, count, texts_only=True):
        problem = _text_problem(row)
        if not problem and row["id"] in first_seen:
            problem = f"has the id of row number {first_seen[row['id']]}; ids must be unique"
        if problem:
            found.bad[number] = f"{row['file']}: row {row['id']} (number {number}) {problem}."
        first_seen.setdefault(row["id"], number)
        found.rows = number + 1
    if not found.rows:
        raise NapoError(f"{folder} holds no rows.")
    return found


def batches(
    folder: Path,
    size: int,
    count: int = 0,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[tuple[int, list[tuple[int, dict[str, Any]]]]]:
    """Batches of rows, each with its number: `[(number of the row, row), ...]`.

    Args:
        folder: the source.
        size: rows a batch.
        count: rows used, from the first on; 0: all.
        wanted: which batches, by number; the others are passed over.
    """
    batch: list[tuple[int, dict[str, Any]]] = []
    for number, row in _rows(folder, count, wanted=lambda number: wanted(number // size)):
        if batch and number // size != batch[0][0] // size:
            yield batch[0][0] // size, batch
            batch = []
        batch.append((number, row))
    if batch:
        yield batch[0][0] // size, batch


def file_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number in the file and content of each row of one Parquet file."""
    return _parquet_rows(path, 0, False, lambda number: True)


def texts(folder: Path, count: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of a source without their images."""
    return (row for _, row in _rows(folder, count, texts_only=True))


def first_row(folder: Path) -> dict[str, Any]:
    """The first row of a source, its image decoded.

    Raises:
        NapoError: as `survey` and `decode`.
    """
    for _, row in _rows(folder, 1):
        return decode(row)
    raise NapoError(f"{folder} holds no rows.")


def decode(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its image as a PIL RGB image.

    Raises:
        BadRow: when the image cannot be used, naming the row.
    """
    held = row["image"]
    try:
        if isinstance(held, Mapping):
            held = held.get("bytes") or _inside(row, held.get("path"))
        elif isinstance(held, str):
            held = _inside(row, held)
        return {**row, "image": open_rgb(held)}
    except BadPicture as problem:
        raise BadRow(
            f"Row {row['id']}: its image cannot be used, {problem}; replace or drop the row."
        ) from None


def with_bytes(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its image as the bytes it came in, for Parquet.

    Raises:
        BadRow: when the image's file is missing or outside the folder.
    """
    held = row["image"]
    if isinstance(held, Mapping) and held.get("bytes"):
        return {**row, "image": {"bytes": held["bytes"], "path": held.get("path")}}
    name = held.get("path") if isinstance(held, Mapping) else held
    try:
        path = _inside(row, name)
        return {**row, "image": {"bytes": path.read_bytes(), "path": name}}
    except (BadPicture, OSError) as problem:
        raise BadRow(f"Row {row['id']}: its image cannot be used, {problem}.") from None


def rename_released(names: list[str]) -> list[str]:
    """Column names with the released ones replaced by the paper's."""
    return [RELEASED_NAMES.get(name, name) for name in names]


def _inside(row: Mapping[str, Any], name: Any) -> Path:
    """The file of an image, which must lie in the source's folder."""
    if not isinstance(name, str) or not name:
        raise BadPicture("it is missing")
    if not row.get("folder"):
        raise BadPicture(f"the row names {name!r} and does not hold it")
    root = Path(row["folder"]).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise BadPicture(f"its path {name!r} leaves the folder")
    if not path.is_file():
        raise BadPicture(f"its file {name!r} is not there")
    return path


def _text_problem(row: Mapping[str, Any]) -> str:
    for name in TEXTS:
        text = row.get(name)
        if text is not None and not isinstance(text, str):
            return f"has a {name} that is no text"
        if not (text or "").strip():
            return f"has an empty {name}; write one or drop the row"
        if "\0" in text:
            return f"has a null character in its {name}; take it out"
    return ""


def _rows(
    folder: Path,
    count: int,
    *,
    texts_only: bool = False,
    wanted: Callable[[int], bool] = lambda number: True,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and content of the rows that are wanted, file by file."""
    files, read = _files(folder)
    first = 0
    for path in files:
        for number, row in read(path, first, texts_only, wanted):
            if count and number >= count:
                return
            yield number, row
        first += _length(path) if read is _parquet_rows else number_of_lines(path)


def _files(folder: Path) -> tuple[list[Path], Callable[..., Iterator[tuple[int, dict[str, Any]]]]]:
    """The files of a source, and what reads them."""
    for pattern, read in (("*.parquet", _parquet_rows), ("*.jsonl", _jsonl_rows)):
        files = finished_files(Path(folder), pattern) if Path(folder).is_dir() else []
        if files:
            return files, read
    raise NapoError(f"{folder} holds no .parquet or .jsonl file; put the preference rows there.")


def _parquet_rows(
    path: Path, first: int, texts_only: bool, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow as pa

    file = _open_parquet(path)
    columns = [name for name in file.schema_arrow.names if not texts_only or name != "image"]
    number = first
    try:
        for group in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if not any(wanted(at) for at in range(number, number + size)):
                number += size
                continue
            held = file.iter_batches(READ_ROWS, row_groups=[group], columns=columns)
            for table in held:
                table = table.rename_columns(rename_released(table.schema.names))
                if not any(wanted(at) for at in range(number, number + table.num_rows)):
                    number += table.num_rows
                    continue
                for row in table.to_pylist():
                    if wanted(number):
                        yield number, _named(row, path, number - first)
                    number += 1
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None
    names = rename_released(file.schema_arrow.names)
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise NapoError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"RLAIF-V has {', '.join(REQUIRED)}."
        )
    return file


def _unreadable(path: Path, error: Exception) -> NapoError:
    problem = str(error).splitlines()[0]
    return NapoError(
        f"{path} cannot be read as Parquet ({problem}); delete it and make it or fetch it again."
    )


def _length(path: Path) -> int:
    return _open_parquet(path).metadata.num_rows


def number_of_rows(folder: Path, count: int = 0) -> int:
    """How many rows a source has, or how many of them are used, without reading them.

    Raises:
        NapoError: when there is no file of rows, or one does not open.
    """
    files, read = _files(folder)
    total = sum(_length(path) if read is _parquet_rows else number_of_lines(path) for path in files)
    return min(count, total) if count else total


def number_of_lines(path: Path) -> int:
    """Lines of a JSONL file that hold something."""
    with open(path, "rb") as file:
        return sum(bool(line.strip()) for line in file)


def _jsonl_rows(
    path: Path, first: int, texts_only: bool, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    number = first
    with open(path, "rb") as file:
        for line_number, line in enumerate(file, 1):
            if not line.strip():
                continue
            if wanted(number):
                try:
                    row = json.loads(line)
                except ValueError:
                    raise NapoError(
                        f"{path}, line {line_number}, is not JSON; correct or delete it."
                    ) from None
                if not isinstance(row, dict):
                    raise NapoError(f"{path}, line {line_number}, is no JSON object.")
                row = {RELEASED_NAMES.get(name, name): value for name, value in row.items()}
                row.setdefault("image", row.get("image_path"))
                missing = [name for name in REQUIRED if row.get(name) is None]
                if missing:
                    raise NapoError(f"{path}, line {line_number}, lacks {', '.join(missing)}.")
                yield number, _named(row, path, number - first)
            number += 1


def _named(row: dict[str, Any], path: Path, place: int) -> dict[str, Any]:
    """The row with an `id` of text, and where it comes from."""
    if row.get("id") is None:
        row["id"] = row["idx"] if row.get("idx") is not None else f"{path.stem}-{place}"
    return {**row, "id": str(row["id"]), "file": path.name, "folder": str(path.parent)}
