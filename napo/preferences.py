"""The data: read RLAIF-V, build RLAIF-V-Bias shard by shard, keep the reference's log-probs.

A row's columns are those of RLAIF-V; RLAIF-V-Bias adds the two biased responses. Columns that
are neither (the icon world's `truth`) pass through untouched.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.workspace import atomic_file, finished_files

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

RESPONSES = ("chosen", "rejected", "language_biased", "vision_biased")
BIASED = ("language_biased", "vision_biased")
# Names that the released generator and trainer use for the two biased responses.
RELEASED_NAMES = {
    "question_only": "language_biased",
    "question_only_None": "language_biased",
    "image_only": "vision_biased",
}
REQUIRED = ("image", "question", "chosen", "rejected")


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order.

    Raises:
        NapoError: when there is none.
    """
    files = finished_files(folder, "*.parquet")
    if not files:
        raise NapoError(f"{folder} holds no .parquet file; put the preference rows there.")
    return files


def schema(extra: Iterable[str] = ()) -> pa.Schema:
    """The Arrow schema of preference rows, readable as Hugging Face `datasets` features.

    Args:
        extra: further text columns, in order.
    """
    from datasets import Features, Image, Value

    columns: dict[str, Any] = {"id": Value("string"), "idx": Value("int64"), "image": Image()}
    for name in ("question", "chosen", "rejected"):
        columns[name] = Value("string")
    for name in ("origin_dataset", "origin_split", "image_path"):
        columns[name] = Value("string")
    for name in extra:
        columns[name] = Value("bool" if name.endswith("_cut") else "string")
    return Features(columns).arrow_schema


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to one Parquet file, atomically; images as the bytes they came in."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = schema()
    extra = [name for name in rows[0] if name not in known.names]
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema(extra))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=128)


def image_bytes(image: Any) -> dict[str, Any]:
    """A PIL image as the `{"bytes", "path"}` pair that Parquet keeps (PNG, lossless)."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def read_shard(path: Path) -> list[dict[str, Any]]:
    """The rows of one Parquet file, checked, with the released column names understood.

    Raises:
        NapoError: when the file does not open, a column is missing, or a row has an empty field.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        problem = str(error).splitlines()[0]
        raise NapoError(
            f"{path} cannot be read as Parquet ({problem}); delete it and make it again."
        ) from None
    table = table.rename_columns([RELEASED_NAMES.get(name, name) for name in table.column_names])
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise NapoError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; "
            f"RLAIF-V has {', '.join(REQUIRED)}."
        )
    rows = table.to_pylist()
    for number, row in enumerate(rows):
        if row.get("id") is None:
            row["id"] = str(row["idx"]) if row.get("idx") is not None else f"{path.stem}-{number}"
        for name in ("question", "chosen", "rejected"):
            if not (row[name] or "").strip():
                raise NapoError(f"{path}: row {row['id']} has an empty {name}; correct or drop it.")
    return rows


def decode(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its image as a PIL RGB image.

    Raises:
        NapoError: when the bytes are no image, naming the row.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    except (UnidentifiedImageError, OSError, TypeError, Image.DecompressionBombError) as error:
        raise NapoError(
            f"Row {row['id']}: its image does not decode ({error}); replace or drop the row."
        ) from None
    return {**row, "image": image}


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of a folder, shard by shard, images decoded, ids unique.

    Raises:
        NapoError: for a repeated id, and as `read_shard` and `decode`.
    """
    seen: set[str] = set()
    for path in shards(folder):
        for row in read_shard(path):
            if row["id"] in seen:
                raise NapoError(f"{path}: the id {row['id']} appears twice; ids must be unique.")
            seen.add(row["id"])
            yield decode(row)


def map_shards(
    source: Path,
    target: Path,
    make: Callable[[list[dict[str, Any]]], list[Mapping[str, Any]]],
    write: Callable[[Path, Sequence[Mapping[str, Any]]], None],
) -> int:
    """Write one target shard for each source shard, skipping those that already exist.

    An interrupted call loses at most the shard it was at; the next one makes the same bytes.

    Args:
        source: folder of Parquet shards.
        target: folder of the results, same file names.
        make: rows (images decoded) -> result rows.
        write: writes result rows to a path, atomically.

    Returns:
        The number of shards that were made by this call.
    """
    made = 0
    for path in shards(source):
        if not (target / path.name).is_file():
            write(target / path.name, make([decode(row) for row in read_shard(path)]))
            made += 1
    return made


def with_biased(
    rows: Sequence[Mapping[str, Any]],
    generated: Mapping[str, Sequence[Any]],
) -> list[dict[str, Any]]:
    """Rows of RLAIF-V-Bias: the rows with the two biased responses added (Eqs. 7 and 8).

    Args:
        rows: rows of RLAIF-V, images decoded.
        generated: for each of `BIASED`, one `napo.generate.Generated` per row.
    """
    added = []
    for number, row in enumerate(rows):
        new = {**row, "image": image_bytes(row["image"])}
        for name in BIASED:
            response = generated[name][number]
            new[name], new[f"{name}_cut"] = response.text, response.cut
        added.append(new)
    return added


def write_reference(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write reference log-probs: `id`, and `<response>_logp`, `<response>_tokens` per response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> pa.DataType:
        return pa.float64() if name.endswith("_logp") else pa.int32()

    fields = [(name, pa.string() if name == "id" else kind(name)) for name in rows[0]]
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(fields))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def load(rows: Path, reference: Path | None = None) -> datasets.Dataset:
    """The rows as a Hugging Face dataset, the reference's columns joined by id.

    Raises:
        NapoError: when a row has no reference log-probs, naming the ids.
    """
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.concat_tables([pq.read_table(path) for path in shards(rows)])
    if reference is not None:
        scores = pa.concat_tables([pq.read_table(path) for path in shards(reference)])
        lost = set(table["id"].to_pylist()) - set(scores["id"].to_pylist())
        if lost:
            raise NapoError(
                f"{reference} has no log-probs for {len(lost)} rows ({', '.join(sorted(lost)[:5])}"
                f"{' ...' * (len(lost) > 5)}); delete it and run 01_build_biased_data again."
            )
        order = {name: at for at, name in enumerate(scores["id"].to_pylist())}
        scores = scores.take([order[name] for name in table["id"].to_pylist()])
        for name in scores.column_names[1:]:
            table = table.append_column(name, scores[name])
    features = datasets.Features.from_arrow_schema(table.schema)
    features["image"] = datasets.Image(mode="RGB")
    return datasets.Dataset(table.cast(features.arrow_schema))
