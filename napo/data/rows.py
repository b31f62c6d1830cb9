"""RLAIF-V-Bias and the reference's log-probs on disk: built part by part, joined by id.

A row's columns are those of RLAIF-V; RLAIF-V-Bias adds the two biased responses. Columns that
are neither (the icon world's `truth`) pass through untouched. A part holds the same rows whatever
the files of the source and the number of processes, and memory holds one part.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config.variants import BIASED
from napo.data import sources
from napo.data.source_files import ParquetFile, blank, encodable, reading, require_all, shown
from napo.data.sources import CUTS, BadRow
from napo.errors import NapoError
from napo.workspace.files import atomic_file, finished_files, read_json, write_json
from napo.workspace.hashing import content_hash
from napo.workspace.manifests import complete, manifest_fingerprint, require

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

COLUMNS = ("id", "idx", "image", "question", "chosen", "rejected", "origin_dataset",
           "origin_split", "image_path")  # fmt: skip
IN_MEMORY_BYTES = 2**30  # Parquet up to this size is loaded; larger data is mapped from disk
PART = "part-{:05d}.parquet"
SKIPPED = "skipped"  # folder of the rows that were left out

Build = Callable[[list[dict[str, Any]]], Mapping[str, Sequence[Any]]]
Check = Callable[[Mapping[str, Any], Sequence[str]], None]


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order; an error if there is none, or one is missing."""
    files = finished_files(folder, "*.parquet")
    if not files:
        raise NapoError(f"{folder} holds no .parquet file; put the preference rows there.")
    require_all(files)
    return files


def row_ids(folder: Path) -> set[str]:
    """The ids of all rows of a folder; empty where there are none.

    Raises:
        NapoError: when a file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = finished_files(folder, "*.parquet")
    try:
        return set(pq.read_table(files, columns=["id"])["id"].to_pylist()) if files else set()
    except (OSError, pa.ArrowException):
        raise NapoError(
            f"{folder} holds a damaged file; delete {folder} and run "
            "notebooks/01_build_biased_data.ipynb again."
        ) from None


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write rows to one Parquet file, readable as Hugging Face `datasets` features.

    Args:
        path: the file, written atomically.
        rows: rows with images as `{"bytes", "path"}`.
        columns: columns that are written even where no row has them.
    """
    from datasets import Features, Image, Value

    names = dict.fromkeys((*COLUMNS, *columns, *(name for row in rows for name in row)))
    features = {name: Value("bool" if name in CUTS else "string") for name in names}
    features["image"] = Image()
    plain = [
        {name: value if name in (*CUTS, "image") else _text(value) for name, value in row.items()}
        for row in rows
    ]
    _write_parquet(path, plain, Features(features).arrow_schema, row_group_size=128)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(value, default=str)


def _write_parquet(
    path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema, **options: Any
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, temporary, compression="zstd", **options)


def image_bytes(image: Any) -> dict[str, Any]:
    """A PIL image as the `{"bytes", "path"}` pair that Parquet keeps (PNG, lossless)."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_rows(
    source: Path,
    folder: Path,
    generate: Build,
    *,
    size: int,
    check: Check = lambda row, responses: None,
    count: int = 0,
    bad_rows: str = "stop",
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Build RLAIF-V-Bias part by part, without the parts that are there (Eqs. 7 and 8).

    An interrupted call loses at most the parts it was writing; the next makes the same bytes.

    Args:
        source: folder of the rows, see `napo.data.sources`.
        folder: of the parts.
        generate: rows (images decoded) -> for each of `BIASED`, one `Generated` a row.
            Rows that come with both biased responses (the released RLAIF-V-Bias) keep them.
        size: rows a part.
        check: (row, names of responses) -> raises `BadRow` if scoring would refuse them. It sees a
            row before anything is generated for it, and each generated response (without image).
        count: rows used, from the first on; 0: all.
        bad_rows: "stop" at a row that cannot be used, or "skip" it: it is then left out and listed
            in `skipped/`. A blank answer of the model makes its row such a row, because another
            answer would need other settings than the profile's.
        worker: number of this process and how many there are; each makes parts of its own.
        done: called with the number of rows after each part.

    Raises:
        BadRow: under "stop", for the first row that cannot be used; under "skip", if none can.
        NapoError: when the source cannot be read.
    """
    known = sources.survey(source, count)
    if known.bad and (bad_rows == "stop" or len(known.bad) == known.rows):
        first, *others = known.bad.values()
        raise BadRow(first + f" ({len(others)} more rows cannot be used.)" * bool(others))
    rank, world = worker

    def is_mine(number: int) -> bool:
        return number % world == rank and not (folder / PART.format(number)).is_file()

    for number, batch in sources.batches(source, size, count, is_mine):
        rows: dict[int, dict[str, Any]] = {}  # by their number in the source
        bare: dict[int, dict[str, Any]] = {}  # decoded rows without both biased responses
        problems: dict[int, str] = {}
        for place, row in batch:
            with _noted(problems, place, bad_rows):
                if place in known.bad:
                    raise BadRow(known.bad[place])
                row = sources.with_bytes(row)
                decoded, responses = sources.decode(row), own_responses(row)
                check(decoded, responses)
                rows[place] = {k: v for k, v in row.items() if k not in sources.PLACE}
                if not set(BIASED) <= set(responses):
                    bare[place] = decoded
        generated = generate(list(bare.values())) if bare else {}
        for index, place in enumerate(bare):
            for name in BIASED:
                response = generated[name][index]
                rows[place] |= {name: response.text, f"{name}_cut": response.cut}
            with _noted(problems, place, bad_rows):
                _check_generated(rows[place], check)
        made = [row for place, row in rows.items() if place not in problems]
        for name in BIASED:
            for row in made:
                row[name], row[f"{name}_cut"] = row[name].strip(), bool(row.get(f"{name}_cut"))
        if problems:
            left_out = [
                {"id": encodable(row["id"]), "row": str(place), "reason": problems[place]}
                for place, row in batch
                if place in problems
            ]
            write_json((folder / SKIPPED / PART.format(number)).with_suffix(".json"), left_out)
        added = [column for name in BIASED for column in (name, f"{name}_cut")]
        write_shard(folder / PART.format(number), made, added)
        done(len(batch))


@contextmanager
def _noted(problems: dict[int, str], place: int, bad_rows: str) -> Iterator[None]:
    """Under "skip", note why the row at this place cannot be used."""
    try:
        yield
    except BadRow as problem:
        if bad_rows == "stop":
            raise
        problems[place] = str(problem)


def own_responses(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The responses that a row comes with: in the released RLAIF-V-Bias also both biased ones."""
    both = not any(blank(row.get(name) or "") for name in BIASED)
    return ("chosen", "rejected", *(BIASED if both else ()))


def _check_generated(row: Mapping[str, Any], check: Check) -> None:
    """Refuse a response of the model that shows nothing, or that scoring would refuse."""
    for name in BIASED:
        try:
            if blank(row[name]):
                raise BadRow
            check({**row, "image": None}, (name,))
        except BadRow:
            raise BadRow(
                f"Row {shown(row['id'])}: the model's {name} is empty ({shown(repr(row[name]))}); "
                "drop the row, set data.bad_rows to skip, or change masks.decoding."
            ) from None


def skipped(folder: Path) -> list[dict[str, str]]:
    """The rows that `write_rows` left out: `id`, `row` (its number in the source) and `reason`."""
    return [
        entry for path in finished_files(folder / SKIPPED, "*.json") for entry in read_json(path)
    ]


def write_scores(
    rows: Path,
    folder: Path,
    make: Callable[[list[dict[str, Any]]], list[Mapping[str, Any]]],
    *,
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Score RLAIF-V-Bias part by part, skipping the parts that are there; see `write_rows`.

    `make` turns rows (images decoded) into rows of log-probs, as `write_reference` takes them.
    """
    rank, world = worker
    for number, path in enumerate(shards(rows)):
        if number % world != rank or (folder / path.name).is_file():
            continue
        part = ParquetFile(path).rows(0, lambda number: True)
        decoded = [sources.decode(row) for _, row in part]
        write_reference(folder / path.name, make(decoded) if decoded else [])
        done(len(decoded))


def write_reference(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write reference log-probs: `id`, and `<response>_logp`, `<response>_tokens` per response."""
    import pyarrow as pa

    kinds = {"id": pa.string(), "logp": pa.float64(), "tokens": pa.int32()}
    names = rows[0] if rows else ["id"]
    _write_parquet(path, rows, pa.schema([(n, kinds[n.rpartition("_")[2]]) for n in names]))


def load_rows(rows: Path, reference: Path | None = None) -> datasets.Dataset:
    """The rows as a Hugging Face dataset, the reference's columns joined by id.

    Images are decoded when a row is read, as at every other stage. Data larger than
    `IN_MEMORY_BYTES` is mapped from an Arrow copy beside the rows, so that memory stays flat.

    Raises:
        NapoError: when a row has no reference log-probs, naming the ids, or has some already.
    """
    import datasets

    files = shards(rows)
    if sum(path.stat().st_size for path in files) > IN_MEMORY_BYTES:
        shown = not datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        cache = str(rows.with_name("cache"))
        data = datasets.Dataset.from_parquet([str(path) for path in files], cache_dir=cache)
        if shown:
            datasets.enable_progress_bars()
    else:
        data = datasets.Dataset(_read_tables(files))
    data = data.cast_column("image", datasets.Image(decode=False))
    if reference is not None:
        scores, ids = _read_tables(shards(reference)), list(data["id"])
        order = {id: index for index, id in enumerate(scores["id"].to_pylist())}
        lost = sorted(set(ids) - set(order))
        if lost:
            raise NapoError(
                f"{reference} has no log-probs for {len(lost)} rows ({', '.join(lost[:5])}"
                f"{' ...' * (len(lost) > 5)}); delete it and run 01_build_biased_data again."
            )
        if double := [n for n in scores.column_names if n != "id" and n in data.column_names]:
            raise NapoError(
                f"{rows} has the column {', '.join(double)}, as {reference} has; drop it there."
            )
        joined = scores.drop_columns(["id"]).take([order[id] for id in ids]).combine_chunks()
        data = datasets.concatenate_datasets([data, datasets.Dataset(joined)], axis=1)
    return data.with_transform(_decoded)


def checked_fingerprint(folder: Path) -> str:
    """The fingerprint of rows: of their folder's manifest, or else of the files."""
    if complete(folder):
        return manifest_fingerprint(require(folder))
    return content_hash(shards(folder), folder)


def _read_tables(files: Sequence[Path]) -> pa.Table:
    """The content of Parquet files, one after the other; columns that one lacks are null there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for path in files:
        with reading(path, "delete its folder and run notebooks/01_build_biased_data.ipynb again"):
            tables.append(pq.read_table(path))
    return pa.concat_tables(tables, promote_options="default")


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch of columns with its images decoded."""
    if "image" not in batch:
        return batch
    ids = batch.get("id") or ["?"] * len(batch["image"])
    pairs = zip(ids, batch["image"], strict=True)
    images = [sources.decode({"id": id, "image": image})["image"] for id, image in pairs]
    return {**batch, "image": images}
