"""RLAIF-V-Bias and the reference's log-probs on disk: built part by part, joined by id.

A row's columns are those of RLAIF-V; RLAIF-V-Bias adds the two biased responses. Columns that
are neither (the icon world's `truth`) pass through untouched. A part holds the same rows whatever
the files of the source and the number of processes, and memory holds one part.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from napo.config.variants import BIASED
from napo.data import sources
from napo.data.sources import BadRow
from napo.errors import NapoError
from napo.workspace.files import atomic_file, finished_files, write_json
from napo.workspace.hashing import content_hash
from napo.workspace.manifests import complete, manifest_fingerprint, require

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

CUTS = tuple(f"{name}_cut" for name in BIASED)  # whether the length limit ended the response
IN_MEMORY_BYTES = 2**30  # Parquet up to this size is loaded; larger data is mapped from disk
SKIPPED = "skipped"  # folder of the rows that were left out

Build = Callable[[list[dict[str, Any]]], Mapping[str, Sequence[Any]]]


def shards(folder: Path) -> list[Path]:
    """The Parquet files of a folder, in order.

    Raises:
        NapoError: when there is none.
    """
    files = finished_files(folder, "*.parquet")
    if not files:
        raise NapoError(f"{folder} holds no .parquet file; put the preference rows there.")
    return files


def part_name(number: int) -> str:
    """The file of a part."""
    return f"part-{number:05d}.parquet"


def schema(extra: Iterable[str] = ()) -> pa.Schema:
    """The Arrow schema of preference rows, readable as Hugging Face `datasets` features.

    Args:
        extra: further columns, in order: text, or true and false for those of `CUTS`.
    """
    from datasets import Features, Image, Value

    columns: dict[str, Any] = {"id": Value("string"), "idx": Value("string"), "image": Image()}
    for name in ("question", "chosen", "rejected"):
        columns[name] = Value("string")
    for name in ("origin_dataset", "origin_split", "image_path"):
        columns[name] = Value("string")
    for name in extra:
        columns[name] = Value("bool" if name in CUTS else "string")
    return Features(columns).arrow_schema


def write_shard(path: Path, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write rows to one Parquet file, atomically; images as the bytes they came in.

    Args:
        path: the file.
        rows: rows with images as `{"bytes", "path"}`.
        columns: columns that are written even where no row has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    known = schema()
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    wanted = schema([name for name in names if name not in known.names])
    texts = {field.name for field in wanted if field.type == pa.string()}
    plain = [
        {name: _text(value) if name in texts else value for name, value in row.items()}
        for row in rows
    ]
    table = pa.Table.from_pylist(plain, schema=wanted)
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", row_group_size=128)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else json.dumps(value, default=str)


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
    count: int = 0,
    bad_rows: str = "stop",
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Build RLAIF-V-Bias part by part, skipping the parts that are there (Eqs. 7 and 8).

    An interrupted call loses at most the parts it was at; the next one makes the same bytes.

    Args:
        source: folder of the rows, see `napo.data.sources`.
        folder: where the parts go.
        generate: rows (images decoded) -> for each of `BIASED`, one `Generated` a row.
            Rows that come with both biased responses (the released RLAIF-V-Bias) keep them.
        size: rows a part.
        count: rows used, from the first on; 0: all.
        bad_rows: "stop" at a row that cannot be used, or "skip" it: it is then left out and listed
            in `skipped/`.
        worker: number of this process and how many there are; each makes parts of its own.
        done: told the number of rows after each part.

    Raises:
        BadRow: under "stop", for the first row that cannot be used. Finished parts are kept.
        NapoError: when the source cannot be read, or no row is left.
    """
    known = sources.survey(source, count)
    if known.bad and bad_rows == "stop":
        raise BadRow(_and_more(list(known.bad.values())))
    if len(known.bad) == known.rows:
        raise NapoError(_and_more(list(known.bad.values())))
    rank, world = worker

    def mine(number: int) -> bool:
        return number % world == rank and not (folder / part_name(number)).is_file()

    for number, batch in sources.batches(source, size, count, mine):
        rows, skipped = _usable(batch, known.bad, bad_rows)
        generated = _answers([decoded for _, decoded in rows], generate)
        if skipped:
            write_json(folder / SKIPPED / f"part-{number:05d}.json", skipped)
        new = with_biased([raw for raw, _ in rows], generated)
        added = [column for name in BIASED for column in (name, f"{name}_cut")]
        write_shard(folder / part_name(number), new, added)
        done(len(batch))


class _Given(NamedTuple):
    """A biased response that came with its row."""

    text: str
    cut: bool


def _answers(rows: list[dict[str, Any]], generate: Build) -> dict[str, list[Any]]:
    """Both biased responses of each row: those it came with, or generated ones."""
    bare = [row for row in rows if not all((row.get(name) or "").strip() for name in BIASED)]
    made = generate(bare) if bare else {}
    new = {id(row): place for place, row in enumerate(bare)}
    return {
        name: [
            made[name][new[id(row)]]
            if id(row) in new
            else _Given(row[name].strip(), bool(row.get(f"{name}_cut")))
            for row in rows
        ]
        for name in BIASED
    }


def _usable(
    batch: list[tuple[int, dict[str, Any]]], bad: Mapping[int, str], bad_rows: str
) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, str]]]:
    """Rows as (for Parquet, decoded), and those that are left out with the reason."""
    rows, skipped = [], []
    for number, row in batch:
        try:
            if number in bad:
                raise BadRow(bad[number])
            decoded = sources.decode(row)
            raw = {k: v for k, v in sources.with_bytes(row).items() if k not in sources.PLACE}
            rows.append((raw, decoded))
        except BadRow as problem:
            if bad_rows == "stop":
                raise
            skipped.append(
                {"id": sources.encodable(row["id"]), "row": str(number), "reason": str(problem)}
            )
    return rows, skipped


def _and_more(problems: list[str]) -> str:
    more = f" ({len(problems) - 1} more rows cannot be used.)" if len(problems) > 1 else ""
    return problems[0] + more


def skipped(folder: Path) -> list[dict[str, str]]:
    """The rows that `build` left out: `id`, `row` (its number in the source) and `reason`."""
    files = finished_files(folder / SKIPPED, "*.json") if (folder / SKIPPED).is_dir() else []
    return [entry for path in files for entry in json.loads(path.read_text(encoding="utf-8"))]


def with_biased(
    rows: Sequence[Mapping[str, Any]],
    generated: Mapping[str, Sequence[Any]],
) -> list[dict[str, Any]]:
    """Rows of RLAIF-V-Bias: the rows with the two biased responses added (Eqs. 7 and 8).

    Args:
        rows: rows of RLAIF-V.
        generated: for each of `BIASED`, one `napo.models.generate.Generated` per row.
    """
    added = []
    for number, row in enumerate(rows):
        new = dict(row)
        for name in BIASED:
            response = generated[name][number]
            new[name], new[f"{name}_cut"] = response.text, response.cut
        added.append(new)
    return added


def write_scores(
    rows: Path,
    folder: Path,
    make: Callable[[list[dict[str, Any]]], list[Mapping[str, Any]]],
    *,
    worker: tuple[int, int] = (0, 1),
    done: Callable[[int], None] = lambda rows: None,
) -> None:
    """Score RLAIF-V-Bias part by part, skipping the parts that are there.

    Args:
        rows: folder of RLAIF-V-Bias.
        folder: where the parts of log-probs go, under the same names.
        make: rows (images decoded) -> rows of log-probs, see `write_reference`.
        worker: number of this process and how many there are.
        done: told the number of rows after each part.
    """
    rank, world = worker
    for number, path in enumerate(shards(rows)):
        if number % world != rank or (folder / path.name).is_file():
            continue
        held = [sources.decode(row) for _, row in sources.file_rows(path)]
        write_reference(folder / path.name, make(held) if held else [])
        done(len(held))


def write_reference(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write reference log-probs: `id`, and `<response>_logp`, `<response>_tokens` per response."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> pa.DataType:
        return pa.float64() if name.endswith("_logp") else pa.int32()

    names = rows[0] if rows else ["id"]
    fields = [(name, pa.string() if name == "id" else kind(name)) for name in names]
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(fields))
    with atomic_file(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def load_rows(rows: Path, reference: Path | None = None) -> datasets.Dataset:
    """The rows as a Hugging Face dataset, the reference's columns joined by id.

    Images are decoded when a row is asked for, as at every other stage. Data larger than
    `IN_MEMORY_BYTES` is mapped from an Arrow copy beside the rows, so that memory stays flat.

    Raises:
        NapoError: when a row has no reference log-probs, naming the ids.
    """
    import datasets

    files = shards(rows)
    data = _mapped(rows, files) if _large(files) else _in_memory(files)
    data = data.cast_column("image", datasets.Image(decode=False))
    if reference is not None:
        data = datasets.concatenate_datasets([data, _scores(data["id"], reference)], axis=1)
    return data.with_transform(_decoded)


def checked_fingerprint(folder: Path) -> str:
    """The fingerprint of a folder's rows: of its manifest, or of files that none was written for.

    Raises:
        NapoError: when there are none, or a file is not as the manifest says.
    """
    if complete(folder):
        return manifest_fingerprint(require(folder))
    return content_hash(shards(folder), folder)


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        problem = next(iter(str(error).splitlines()), "")
        raise NapoError(
            f"{path} cannot be read ({problem[:200]}); delete its folder and run "
            "notebooks/01_build_biased_data.ipynb again."
        ) from None


def _large(files: Sequence[Path]) -> bool:
    return sum(path.stat().st_size for path in files) > IN_MEMORY_BYTES


def _in_memory(files: Sequence[Path]) -> datasets.Dataset:
    import datasets
    import pyarrow as pa

    table = pa.concat_tables([_table(path) for path in files], promote_options="default")
    return datasets.Dataset(table)


def _mapped(rows: Path, files: Sequence[Path]) -> datasets.Dataset:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        return datasets.Dataset.from_parquet(
            [str(path) for path in files], cache_dir=str(rows.with_name("cache"))
        )
    finally:
        if shown:
            datasets.enable_progress_bars()


def _scores(ids: Iterable[str], reference: Path) -> datasets.Dataset:
    """The reference's columns in the order of these ids."""
    import datasets
    import pyarrow as pa

    parts = [part for path in shards(reference) if (part := _table(path)).num_rows]
    scores, ids = pa.concat_tables(parts), list(ids)
    order = {name: at for at, name in enumerate(scores["id"].to_pylist())}
    lost = set(ids) - set(order)
    if lost:
        raise NapoError(
            f"{reference} has no log-probs for {len(lost)} rows ({', '.join(sorted(lost)[:5])}"
            f"{' ...' * (len(lost) > 5)}); delete it and run 01_build_biased_data again."
        )
    taken = scores.drop_columns(["id"]).take([order[name] for name in ids])
    return datasets.Dataset(taken.combine_chunks())


def _decoded(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A batch of columns with its images decoded."""
    if "image" not in batch:
        return batch
    ids = batch.get("id") or ["?"] * len(batch["image"])
    images = [
        sources.decode({"id": name, "image": image})["image"]
        for name, image in zip(ids, batch["image"], strict=True)
    ]
    return {**batch, "image": images}
