"""Memory and rate of building, scoring and reading 1,000, 10,000 and 100,000 rows.

    python -m bench.scaling            (writes data/bench/scaling.json; about ten minutes)

The rows have RLAIF-V's columns and lengths, and JPEG pictures of 320 x 240 pixels. A stub replaces
the model, so only reading, checking, decoding, writing and joining are measured. Each measurement
is a process of its own; its peak memory is the operating system's number.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES = (1_000, 10_000, 100_000)
SHARD = 6_000  # rows a file, as published: 83,132 rows in 14 files
PART = 256
OUT = Path("data/bench/scaling.json")
STAGES = ("build", "reference", "train")


def make_source(folder: Path, count: int) -> None:
    """Write rows with RLAIF-V's columns; they share 64 pictures and 32 responses, to save time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(64):
        coarse = rng.integers(0, 255, (15, 20, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC).save(
            buffer, "JPEG", quality=85
        )
        pictures.append(buffer.getvalue())
    words = ["a", "picture", "of", "the", "red", "bus", "near", "one", "green", "tree"]
    folder.mkdir(parents=True)
    for start in range(0, count, SHARD):
        numbers = range(start, min(start + SHARD, count))
        responses = [" ".join(rng.choice(words, 80)) for _ in range(32)]
        table = pa.Table.from_pylist(
            [
                {
                    "ds_name": "made",
                    "image": {"bytes": pictures[n % 64], "path": f"{n}.jpg"},
                    "question": f"What is in picture {n}?",
                    "chosen": responses[n % 32],
                    "rejected": responses[(n + 7) % 32],
                    "origin_dataset": "made",
                    "origin_split": "{}",
                    "idx": str(n),
                    "image_path": f"{n}.jpg",
                }
                for n in numbers
            ]
        )
        pq.write_table(table, folder / f"rows_{start // SHARD:03d}.parquet", row_group_size=1000)


def build(folder: Path) -> None:
    """Build the rows with a stub as the model."""
    from napo.config.variants import BIASED
    from napo.data.rows import write_rows
    from napo.models.generate import Generated

    def stub(rows: list[dict[str, Any]]) -> dict[str, list[Generated]]:
        responses = [
            Generated(f"A picture of {sum(row['image'].getpixel((0, 0)))}.", 6, False)
            for row in rows
        ]
        return dict.fromkeys(BIASED, responses)

    write_rows(folder / "source", folder / "rows", stub, size=PART)


def reference(folder: Path) -> None:
    """Score the rows with a stub as the model."""
    from napo.config.variants import CORRUPTED, RESPONSES
    from napo.data.rows import write_scores

    responses = (*RESPONSES, CORRUPTED)

    def stub(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {
                "id": row["id"],
                **{f"{name}_logp": -float(row["image"].getpixel((1, 1))[0]) for name in responses},
                **{f"{name}_tokens": 80 for name in responses},
            }
            for row in rows
        ]

    write_scores(folder / "rows", folder / "reference", stub)


def train(folder: Path) -> None:
    """Read the joined data set as training does: a thousand rows in random order."""
    import numpy as np

    from napo.data import rows

    rows.IN_MEMORY_BYTES = 0  # mapped from disk at every size, as the paper's data is
    data = rows.load_rows(folder / "rows", folder / "reference")
    for index in np.random.default_rng(0).integers(0, len(data), 1000).tolist():
        row = data[index]
        if row["image"].size != (320, 240) or row["chosen_tokens"] != 80:
            raise SystemExit(f"Row {index} has changed.")


def run_stage(stage: str, folder: Path) -> None:
    """Measure a stage in this process and print the numbers."""
    import pyarrow.parquet  # noqa: F401
    import torch  # noqa: F401  imported by every stage, so that peaks are comparable

    ground = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    globals()[stage](folder)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024, "ground_mb": ground / 1024}))


def measure(size: int, work: Path) -> list[dict[str, Any]]:
    """Measure all stages at one size."""
    folder = work / str(size)
    make_source(folder / "source", size)
    results = []
    for stage in STAGES:
        call = [sys.executable, "-m", "bench.scaling", "--one", stage, "--folder", str(folder)]
        done = subprocess.run(call, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout.splitlines()[-1])
        rows = 1000 if stage == "train" else size
        results.append({"rows": size, "stage": stage, "rate": rows / result["seconds"], **result})
        print(
            f"{size:>7} rows, {stage:<9}: {result['seconds']:7.1f} s, "
            f"{rows / result['seconds']:6.0f} rows/s, peak {result['peak_mb']:5.0f} MB",
            flush=True,
        )
    shutil.rmtree(folder)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--one", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_stage(options.one, options.folder)
        return
    with tempfile.TemporaryDirectory() as work:
        results = [result for size in options.sizes for result in measure(size, Path(work))]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
