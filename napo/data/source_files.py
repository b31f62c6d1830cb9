"""The files of a source: Parquet with images in it, or JSONL beside its images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unicodedata import category

from napo.errors import NapoError
from napo.workspace.files import decoded, finished_files, foreign_file, parse_json

# Names that the released generator and trainer use for the two biased responses.
RELEASED_NAMES = {
    "question_only": "language_biased",
    "question_only_None": "language_biased",
    "image_only": "vision_biased",
}
REQUIRED = ("image", "question", "chosen", "rejected")
# Characters that show nothing by themselves: their categories in Unicode, and letters of no width.
HIDDEN = ("Cc", "Cf", "Zs", "Zl", "Zp", "Mn", "Me")
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
CORRECT = "correct it or get it again"
NUMBERED = re.compile(r"(.*?)([0-9]+)-of-([0-9]+)(.*)")  # train-00000-of-00003.parquet
READ_ROWS = 64  # rows of Parquet decoded at a time

Row = dict[str, Any]
Wanted = Callable[[int], bool]  # number -> whether to read that row or batch


def encodable(text: str) -> str:
    """The text as it can be stored: lone surrogates replaced."""
    return text.encode(errors="replace").decode()


def shown(text: str, most: int = 80) -> str:
    """The beginning of a text for a terminal: characters that do not print are escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in encodable(text)[:most]
    )


def blank(text: str) -> bool:
    """Whether no character shows: white space of any script, zero width, control, fillers."""
    return all(category(letter) in HIDDEN or letter in FILLERS for letter in text)


@contextmanager
def reading(path: Path, remedy: str = "delete it and make it or fetch it again") -> Iterator[None]:
    """Turn pyarrow's errors about a damaged file into a sentence."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = foreign_file(path)
        problem = problem or shown(next(iter(str(error).splitlines()), type(error).__name__), 300)
        raise NapoError(f"{path} cannot be read as Parquet ({problem}); {remedy}.") from None


class ParquetFile:
    """A Parquet file of preference rows; an error if it does not open or lacks a column."""

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        with reading(path):
            self.file = pq.ParquetFile(path)
            columns = self.file.schema_arrow.names
        self.columns = {name: RELEASED_NAMES.get(name, name) for name in columns}
        self.count = self.file.metadata.num_rows
        missing = ", ".join(name for name in REQUIRED if name not in self.columns.values())
        if missing:
            raise NapoError(
                f"{path} lacks the column {missing}; RLAIF-V has {', '.join(REQUIRED)}."
            )

    def rows(
        self, first: int, wanted: Wanted, texts_only: bool = False
    ) -> Iterator[tuple[int, Row]]:
        """Number (from `first` on) and content of the wanted rows, `READ_ROWS` in memory."""
        import pyarrow as pa

        columns = [name for name in self.columns if not texts_only or name != "image"]
        names = [self.columns[name] for name in columns]
        with reading(self.path):
            for group in range(self.file.metadata.num_row_groups):
                number = first
                first += self.file.metadata.row_group(group).num_rows
                if not any(map(wanted, range(number, first))):
                    continue
                for batch in self.file.iter_batches(READ_ROWS, row_groups=[group], columns=columns):
                    kept = [i for i in range(batch.num_rows) if wanted(number + i)]
                    rows = batch.rename_columns(names).take(pa.array(kept, pa.int64()))
                    for i, row in zip(kept, rows.to_pylist(), strict=True):
                        yield number + i, row
                    number += batch.num_rows


class JsonlFile:
    """A JSONL file of preference rows; images are files beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def count(self) -> int:
        """Lines that are not empty."""
        with open(self.path, "rb") as file:
            return sum(bool(line.strip()) for line in file)

    def rows(
        self, first: int, wanted: Wanted, texts_only: bool = False
    ) -> Iterator[tuple[int, Row]]:
        """Number (from `first` on) and content of the wanted rows."""
        if problem := foreign_file(self.path):  # before its lines, which would hide it
            raise NapoError(f"{self.path} is damaged ({problem}); {CORRECT}.")
        number = first - 1
        with open(self.path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                number += bool(line.strip())
                if not line.strip() or not wanted(number):
                    continue
                place = f"{self.path}, line {line_number},"
                text = decoded(line, place, CORRECT)
                row = parse_json(text, place, dict[str, Any], CORRECT)
                row = {RELEASED_NAMES.get(name, name): value for name, value in row.items()}
                row.setdefault("image", row.get("image_path"))
                missing = [name for name in REQUIRED if row.get(name) is None]
                if missing:
                    raise NapoError(f"{place} lacks {', '.join(missing)}.")
                yield number, row


def open_files(folder: Path) -> Iterator[ParquetFile | JsonlFile]:
    """The files of a source, one open at a time.

    Raises:
        NapoError: when there are none, or both kinds, or one of numbered files is missing.
    """
    tables, lines = (finished_files(Path(folder), name) for name in ("*.parquet", "*.jsonl"))
    if tables and lines:
        raise NapoError(
            f"{folder} holds {tables[0].name} and {lines[0].name}; keep the preference rows in one "
            "of the two formats, and put the other files elsewhere."
        )
    if not (tables or lines):
        raise NapoError(
            f"{folder} holds no .parquet or .jsonl file; put the preference rows there."
        )
    require_all(tables or lines)
    yield from map(ParquetFile if tables else JsonlFile, tables or lines)


def require_all(paths: Sequence[Path]) -> None:
    """Refuse files named `train-00000-of-00003` if one of them is missing.

    Raises:
        NapoError: naming the first that is missing, and how many are.
    """
    numbers: dict[tuple[str, ...], set[int]] = {}  # beginning, total and end of a name -> numbers
    for path in paths:
        if name := NUMBERED.fullmatch(path.name):
            start, number, *rest = name.groups()
            numbers.setdefault((start, *rest), set()).add(int(number))
    for (start, total, end), present in numbers.items():
        if missing := int(total) - len(present):
            first = int(int(total) in present)  # some count from 1
            number = next(number for number in count(first) if number not in present)
            raise NapoError(
                f"{paths[0].parent} lacks {start}{number:0{len(total)}d}-of-{total}{end}"
                + f" and {missing - 1} more files" * (missing > 1)
                + "; get what is missing, or rename the files to use only these."
            )
