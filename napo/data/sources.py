"""Preference rows as they are published: read batch by batch, with suspicion.

A source is a folder of Parquet shards with RLAIF-V's columns (images as bytes), with the columns
of the released RLAIF-V-Bias, or of JSONL files beside their images. Rows are numbered through all
files; a batch is the same rows whatever the files' boundaries. Memory holds one batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

from napo.config.variants import BIASED
from napo.data.pictures import BadPicture, open_rgb
from napo.errors import NapoError
from napo.workspace.files import finished_files

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
            called = f"{row['file']}: row {shown(row['id'])} (number {number})"
            found.bad[number] = f"{called} {problem}."
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
    try:
        held, name = _held(row["image"])
        return {**row, "image": open_rgb(held or _inside(row, name))}
    except BadPicture as problem:
        raise BadRow(
            f"Row {shown(row['id'])}: its image cannot be used, {problem}; replace or drop the row."
        ) from None


def with_bytes(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its image as the bytes it came in, for Parquet.

    Raises:
        BadRow: when the image's file is missing or outside the folder.
    """
    try:
        held, name = _held(row["image"])
        return {**row, "image": {"bytes": held or _inside(row, name).read_bytes(), "path": name}}
    except (BadPicture, OSError) as problem:
        raise BadRow(f"Row {shown(row['id'])}: its image cannot be used, {problem}.") from None


def rename_released(names: list[str]) -> list[str]:
    """Column names with the released ones replaced by the paper's."""
    return [RELEASED_NAMES.get(name, name) for name in names]


def _held(image: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the name of an image; what is neither is refused, not opened."""
    held, name = None, image
    if isinstance(image, Mapping):
        held, name = image.get("bytes"), image.get("path")
    if isinstance(image, bytes):
        held, name = image, None
    if held is not None and not isinstance(held, bytes):
        raise BadPicture("its bytes are no bytes")
    if name is not None and not isinstance(name, str):
        raise BadPicture("its path is no text")
    return held, name


def _inside(row: Mapping[str, Any], name: str | None) -> Path:
    """The file of an image, which must lie in the source's folder."""
    if not name:
        raise BadPicture("it is missing")
    if not row.get("folder"):
        raise BadPicture(f"the row names {name!r} and does not hold it")
    root = Path(row["folder"]).resolve()
    try:
        path = (root / name).resolve()
        there = path.is_file()
    except (OSError, ValueError):  # a null character, a name that is too long
        raise BadPicture(f"its path {name[:60]!r} is none") from None
    if not path.is_relative_to(root):
        raise BadPicture(f"its path {name!r} leaves the folder")
    if not there:
        raise BadPicture(f"its file {name!r} is not there")
    return path


def _text_problem(row: Mapping[str, Any]) -> str:
    id = row["id"]
    if not id or id != " ".join(id.replace("\0", " ").split()):
        return "has an id that is empty or holds more than words with single spaces; give another"
    if any(category(letter) == "Cc" for letter in id):
        return "has control characters in its id; give another"
    for name in ("id", *TEXTS, *BIASED):
        text = row.get(name)
        if text is not None and not isinstance(text, str):
            return f"has a {name} that is no text"
        if name in TEXTS and not (text or "").strip():
            return f"has an empty {name}; write one or drop the row"
        if "\0" in (text or ""):
            return f"has a null character in its {name}; take it out"
    for name, text in row.items():
        if isinstance(text, str) and text != encodable(text):
            return f"has half a character (a lone surrogate) in its {name}; take it out"
    return ""


def encodable(text: str) -> str:
    """The text as it can be stored: lone surrogates replaced."""
    return text.encode(errors="replace").decode()


def shown(text: str, most: int = 80) -> str:
    """The beginning of a text as a terminal can be trusted with it: what does not print escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in encodable(text)[:most]
    )


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


def files(folder: Path) -> list[Path]:
    """Every file that a source's rows come from: its Parquet or JSONL, and the images named there.

    Images that are missing, or outside the folder, are left to whoever reads the rows.

    Raises:
        NapoError: as `survey`.
    """
    found, read = _files(folder)
    if read is _parquet_rows:
        return found
    images, root = set(), Path(folder).resolve()
    for _, row in _rows(folder, 0, texts_only=True):
        with suppress(BadPicture):
            held, name = _held(row["image"])
            if held is None:
                images.add(Path(folder) / _inside(row, name).relative_to(root))
    return [*found, *sorted(images)]


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
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _open_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        names = rename_released(file.schema_arrow.names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise NapoError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"RLAIF-V has {', '.join(REQUIRED)}."
        )
    return file


def _unreadable(path: Path, error: Exception) -> NapoError:
    problem = shown(next(iter(str(error).splitlines()), type(error).__name__), 300)
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
                except (ValueError, RecursionError):
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
