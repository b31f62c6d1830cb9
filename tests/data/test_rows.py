"""RLAIF-V-Bias and reference log-probs: built part by part, the same from any files."""

import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_fixtures import SPOILT, encoded, picture, published, spoilt, write, write_jsonl

from napo.config.variants import BIASED
from napo.data import sources
from napo.data.rows import (
    image_bytes,
    load_rows,
    shards,
    skipped,
    with_biased,
    write_reference,
    write_rows,
    write_scores,
    write_shard,
)
from napo.errors import NapoError
from napo.models.generate import Generated


def answers(rows):
    said = [Generated(f"{row['question']} Yes.", 3, False) for row in rows]
    return {name: said for name in BIASED}


def build(source, target, **options):
    write_rows(source, target, answers, **{"size": 3, **options})
    return load_rows(target)


@pytest.mark.parametrize("shape", [[10], [1, 9], [4, 4, 2], [3, 0, 7]])
@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_parts_do_not_depend_on_the_sources_files(tmp_path, shape, kind):
    rows = [published(number) for number in range(10)]
    starts = np.cumsum([0, *shape])
    if kind == "parquet":
        pieces = [rows[a:b] for a, b in itertools.pairwise(starts) if a < b]
        source = write(tmp_path / "source", *pieces)
    else:
        source = write_jsonl(tmp_path / "source", rows)
    assert sources.number_of_rows(source) == sources.survey(source).rows == 10
    data = build(source, tmp_path / "rows")
    assert data["id"][:] == [str(number) for number in range(10)]
    assert [len(pq.read_table(path)) for path in shards(tmp_path / "rows")] == [3, 3, 3, 1]
    assert data[7]["image"].getpixel((0, 0)) == (7, 50, 60)
    assert data[7]["language_biased"] == "What is 7? Yes." and data[7]["origin_dataset"] == "made"


def test_only_the_first_rows_are_used_if_so_many_are_wanted(tmp_path):
    source = write(tmp_path / "source", [published(n) for n in range(10)])
    assert sources.number_of_rows(source, 4) == 4
    assert build(source, tmp_path / "rows", count=4)["id"][:] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_several_processes_make_the_parts_of_one(tmp_path, world):
    source = write(tmp_path / "source", [published(n) for n in range(11)])
    build(source, tmp_path / "one")
    for rank in range(world):
        write_rows(source, tmp_path / "many", answers, size=3, worker=(rank, world))
    for path in shards(tmp_path / "one"):
        assert (tmp_path / "many" / path.name).read_bytes() == path.read_bytes()


def test_images_keep_the_bytes_they_came_in(tmp_path):
    jpeg = encoded(picture(), "JPEG")
    source = write(tmp_path / "source", [published(1, image={"bytes": jpeg, "path": "x.jpg"})])
    build(source, tmp_path / "rows")
    (held,) = pq.read_table(tmp_path / "rows" / "part-00000.parquet")["image"].to_pylist()
    assert held == {"bytes": jpeg, "path": "x.jpg"}


def test_large_data_is_mapped_and_reads_the_same(tmp_path, monkeypatch):
    source = write(tmp_path / "source", [published(n) for n in range(5)])
    small = build(source, tmp_path / "rows")
    monkeypatch.setattr("napo.data.rows.IN_MEMORY_BYTES", 0)
    large = load_rows(tmp_path / "rows")
    assert large.cache_files and not small.cache_files
    assert large["id"][:] == small["id"][:]
    for ours, theirs in zip(large, small, strict=True):
        assert ours.pop("image").tobytes() == theirs.pop("image").tobytes()
        assert ours == theirs


@pytest.mark.parametrize("name", SPOILT)
def test_a_row_that_cannot_be_used_is_one_sentence_and_the_rest_is_safe(tmp_path, name):
    changes, said = SPOILT[name]
    source = spoilt(tmp_path, changes)
    with pytest.raises(NapoError, match=said) as caught:
        build(source, tmp_path / "stopped")
    sentence = str(caught.value)
    assert ("row 4" in sentence.lower() or name == "repeated id") and "\n" not in sentence
    texts_spoilt = not name.startswith(("empty q", "empty c", "no rej", "null", "repeated"))
    kept = (tmp_path / "stopped" / "part-00000.parquet").is_file()
    assert kept == texts_spoilt  # texts are judged before the first row is asked
    data = build(source, tmp_path / "rows", bad_rows="skip")
    assert len(data) == 7 and "4" not in [row["id"] for row in data]
    (left_out,) = skipped(tmp_path / "rows")
    assert left_out["row"] == "4" and said.split(r"\(")[0].split(" (")[0] in left_out["reason"]


def test_the_released_biased_responses_are_kept_and_only_the_others_made(tmp_path):
    rows = [published(n) for n in range(4)]
    rows[1] |= {"question_only": "Blue.", "image_only": "A picture."}
    rows[2] |= {"question_only": "Red.", "image_only": " "}
    rows = [{"question_only": None, "image_only": None, **row} for row in rows]
    asked = []

    def make(bare):
        asked.extend(row["id"] for row in bare)
        return answers(bare)

    source = write(tmp_path / "source", rows)
    write_rows(source, tmp_path / "rows", make, size=3)
    data = load_rows(tmp_path / "rows")
    assert asked == ["0", "2", "3"]
    assert data[1]["language_biased"] == "Blue." and data[1]["vision_biased"] == "A picture."
    assert data[2]["vision_biased"] == "What is 2? Yes." and data[1]["vision_biased_cut"] is False


def test_rows_left_out_do_not_move_the_others_to_other_parts(tmp_path):
    whole = write(tmp_path / "whole", [published(number) for number in range(8)])
    build(whole, tmp_path / "a")
    build(spoilt(tmp_path, {"question": ""}), tmp_path / "b", bad_rows="skip")
    for name in ("part-00000.parquet", "part-00002.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_part_without_a_usable_row_is_empty_and_loads(tmp_path):
    rows = [published(n, question="" if 3 <= n < 6 else "What?") for n in range(8)]
    data = build(write(tmp_path / "source", rows), tmp_path / "rows", bad_rows="skip")
    assert [row["id"] for row in data] == ["0", "1", "2", "6", "7"]
    assert len(skipped(tmp_path / "rows")) == 3


def test_nothing_but_bad_rows_is_an_error_even_if_they_are_to_be_skipped(tmp_path):
    source = write(tmp_path / "source", [published(n, question="") for n in range(3)])
    with pytest.raises(NapoError, match=r"row 0.*\(2 more rows cannot be used"):
        build(source, tmp_path / "rows", bad_rows="skip")


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
