"""Rows as they come from the web, sound and spoilt."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(value=100, size=(8, 8)):
    return Image.new("RGB", size, (value, 50, 60))


def published(number, **changes):
    """A row with the columns and types of the published RLAIF-V."""
    return {
        "ds_name": "made",
        "image": {"bytes": encoded(picture(number % 256)), "path": f"{number}.png"},
        "question": f"What is {number}?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "origin_dataset": "made",
        "origin_split": '{"model": "x"}',
        "idx": str(number),
        "image_path": f"{number}.png",
        **changes,
    }


def write(folder, *shards, group=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        path = folder / f"RLAIF-V-Dataset_{number:03d}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=group)
    return folder


def write_jsonl(folder, rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row in rows:
        (folder / row["image"]["path"]).write_bytes(row["image"]["bytes"])
        lines.append(json.dumps({**row, "image": row["image"]["path"]}))
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    return folder


BOMB = b"\x89PNG\r\n\x1a\n" + encoded(Image.new("1", (20_000, 20_000)))[8:]
NOISE = encoded(Image.effect_noise((64, 64), 50), "JPEG")
SPOILT = {
    "truncated JPEG": ({"image": {"bytes": NOISE[:300], "path": None}}, "does not decode"),
    "empty bytes": ({"image": {"bytes": b"", "path": None}}, "it is missing"),
    "decompression bomb": ({"image": {"bytes": BOMB, "path": None}}, "pixels"),
    "a line of pixels": (
        {"image": {"bytes": encoded(picture(1, (4000, 1))), "path": None}},
        "too unequal",
    ),
    "empty question": ({"question": " \n"}, "empty question"),
    "no rejected": ({"rejected": None}, "empty rejected"),
    "null character": ({"chosen": "a\0b"}, "null character"),
    "repeated id": ({"idx": "2"}, "has the id of row number 2"),
    "path outside": ({"image": {"bytes": None, "path": "../../secret.png"}}, "leaves the folder"),
    "missing file": ({"image": {"bytes": None, "path": "gone.png"}}, "is not there"),
}


def spoilt(tmp_path, changes):
    rows = [published(number) for number in range(8)]
    rows[4] |= changes
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    return write(tmp_path / "in" / "source", rows)
