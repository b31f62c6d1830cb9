import pytest
from PIL import Image

from napo.config.variants import BIASED
from napo.data.rows import (
    image_bytes,
    load_rows,
    with_biased,
    write_reference,
    write_rows,
    write_scores,
    write_shard,
)
from napo.errors import NapoError
from napo.models.generate import Generated


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
    data = load_rows(tmp_path)
    assert data["id"][:] == ["1", "2"] and data["idx"][:] == ["1", "2"]
    assert data[1]["image"].getpixel((0, 0)) == (2, 0, 0)
    assert data[0]["truth"] == "{}"


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


def test_biased_responses_are_added_beside_what_was_there(tmp_path):
    responses = {name: [Generated(name, 3, name == "vision_biased")] for name in BIASED}
    (made,) = with_biased([row(1)], [row(1)], lambda rows: responses)
    assert made["language_biased"] == "language_biased" and made["language_biased_cut"] is False
    assert made["vision_biased_cut"] is True and made["chosen"] == "A cat."


def test_building_makes_only_the_parts_that_are_missing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "rows"
    for number in range(3):
        write_shard(source / f"shard-{number}.parquet", [row(number)])
    calls = []

    def make(rows):
        calls.append(rows[0]["id"])
        return {name: [Generated("A cat.", 3, False) for _ in rows] for name in BIASED}

    write_rows(source, target, make, size=1)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    (target / "part-00001.parquet").unlink()
    write_rows(source, target, make, size=1)
    assert calls == ["0", "1", "2", "1"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_scores_are_made_part_by_part_under_the_rows_names(tmp_path):
    write_shard(tmp_path / "rows/part-00000.parquet", [row(1), row(2)])
    write_shard(tmp_path / "rows/part-00001.parquet", [row(3)])
    asked = []

    def make(rows):
        asked.append([r["id"] for r in rows])
        return [{"id": r["id"], "chosen_logp": -1.0, "chosen_tokens": 2} for r in rows]

    for rank in (1, 0):
        write_scores(tmp_path / "rows", tmp_path / "scores", make, worker=(rank, 2))
    write_scores(tmp_path / "rows", tmp_path / "scores", make)
    assert asked == [["3"], ["1", "2"]]
    assert load_rows(tmp_path / "rows", tmp_path / "scores")["chosen_tokens"][:] == [2, 2, 2]


def test_reference_columns_are_joined_by_id_whatever_their_order(tmp_path):
    write_shard(tmp_path / "rows/s.parquet", [row(1), row(2)])
    scores = [{"id": str(n), "chosen_logp": -float(n), "chosen_tokens": n} for n in (2, 1)]
    write_reference(tmp_path / "reference/s.parquet", scores)
    data = load_rows(tmp_path / "rows", tmp_path / "reference")
    assert data["chosen_logp"][:] == [-1.0, -2.0]
    assert data[0]["image"].mode == "RGB"


def test_a_row_without_reference_is_named(tmp_path):
    write_shard(tmp_path / "rows/s.parquet", [row(1), row(2)])
    write_reference(tmp_path / "reference/s.parquet", [{"id": "1", "chosen_logp": -1.0}])
    with pytest.raises(NapoError, match=r"no log-probs for 1 rows \(2\)"):
        load_rows(tmp_path / "rows", tmp_path / "reference")


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet file"):
        load_rows(tmp_path)
