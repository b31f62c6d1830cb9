import io

import pytest
from PIL import Image

from napo import preferences
from napo.errors import NapoError
from napo.generate import Generated
from napo.preferences import (
    decode,
    image_bytes,
    load,
    map_shards,
    read_rows,
    read_shard,
    with_biased,
    write_reference,
    write_shard,
)


def row(number, **changes):
    return {
        "id": str(number),
        "idx": number,
        "image": image_bytes(Image.new("RGB", (8, 8), (number, 0, 0))),
        "question": "What is it?",
        "chosen": "A cat.",
        "rejected": "A dog.",
        "origin_dataset": "made",
        "origin_split": "{}",
        "image_path": f"{number}.png",
        "truth": "{}",
        **changes,
    }


def test_rows_come_back_as_they_were_written(tmp_path):
    write_shard(tmp_path / "shard-0.parquet", [row(1), row(2)])
    rows = list(read_rows(tmp_path))
    assert [r["id"] for r in rows] == ["1", "2"]
    assert rows[1]["image"].getpixel((0, 0)) == (2, 0, 0)
    assert rows[0]["truth"] == "{}"


def test_datasets_reads_the_shards_with_their_features(tmp_path):
    import datasets

    write_shard(tmp_path / "shard-0.parquet", [row(1)])
    data = datasets.Dataset.from_parquet(
        str(tmp_path / "shard-0.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(data.features["image"], datasets.Image)
    assert data[0]["image"].size == (8, 8)


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for name in "ab":
        write_shard(tmp_path / f"{name}.parquet", [row(1), row(2)])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_truncated_shard_is_named(tmp_path):
    path = tmp_path / "shard-0.parquet"
    write_shard(path, [row(1)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(NapoError, match=r"shard-0.parquet cannot be read"):
        read_shard(path)


def test_a_missing_column_is_named(tmp_path):
    import pandas as pd

    pd.DataFrame({"image": [None], "question": ["?"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(NapoError, match="lacks the columns chosen, rejected"):
        read_shard(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["question", "chosen", "rejected"])
def test_an_empty_field_names_its_row(tmp_path, name):
    write_shard(tmp_path / "a.parquet", [row(1), row(2, **{name: "  "})])
    with pytest.raises(NapoError, match=f"row 2 has an empty {name}"):
        read_shard(tmp_path / "a.parquet")


def test_a_repeated_id_is_refused_across_shards(tmp_path):
    for name in "ab":
        write_shard(tmp_path / f"{name}.parquet", [row(1)])
    with pytest.raises(NapoError, match="id 1 appears twice"):
        list(read_rows(tmp_path))


def test_an_image_that_does_not_decode_names_its_row():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "JPEG")
    cut = {"bytes": buffer.getvalue()[:200], "path": None}
    with pytest.raises(NapoError, match="Row 7: its image does not decode"):
        decode(row(7, image=cut))


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet file"):
        list(read_rows(tmp_path))


def test_building_skips_the_shards_that_are_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "rows"
    for number in range(3):
        write_shard(source / f"shard-{number}.parquet", [row(number)])
    calls = []

    def make(rows):
        calls.append(rows[0]["id"])
        answers = [Generated(text="A cat.", tokens=3, cut=False) for _ in rows]
        return with_biased(rows, {name: answers for name in preferences.BIASED})

    assert map_shards(source, target, make, write_shard) == 3
    (target / "shard-1.parquet").unlink()
    assert map_shards(source, target, make, write_shard) == 1
    assert calls == ["0", "1", "2", "1"]
    built = list(read_rows(target))
    assert built[0]["language_biased"] == "A cat." and built[0]["vision_biased_cut"] is False


def test_reference_columns_are_joined_by_id_whatever_their_order(tmp_path):
    write_shard(tmp_path / "rows/s.parquet", [row(1), row(2)])
    scores = [{"id": str(n), "chosen_logp": -float(n), "chosen_tokens": n} for n in (2, 1)]
    write_reference(tmp_path / "reference/s.parquet", scores)
    data = load(tmp_path / "rows", tmp_path / "reference")
    assert data["chosen_logp"][:] == [-1.0, -2.0]
    assert data[0]["image"].mode == "RGB"


def test_a_row_without_reference_is_named(tmp_path):
    write_shard(tmp_path / "rows/s.parquet", [row(1), row(2)])
    write_reference(tmp_path / "reference/s.parquet", [{"id": "1", "chosen_logp": -1.0}])
    with pytest.raises(NapoError, match=r"no log-probs for 1 rows \(2\)"):
        load(tmp_path / "rows", tmp_path / "reference")


def test_the_released_column_names_are_understood(tmp_path):
    import pyarrow.parquet as pq

    write_shard(tmp_path / "a.parquet", [row(1, question_only="Blue.", image_only="A picture.")])
    read = read_shard(tmp_path / "a.parquet")[0]
    assert read["language_biased"] == "Blue." and read["vision_biased"] == "A picture."
    assert "question_only" in pq.read_schema(tmp_path / "a.parquet").names
