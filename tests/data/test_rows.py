"""RLAIF-V-Bias and reference log-probs: built part by part, the same from any files."""

import pyarrow.parquet as pq
import pytest
from source_fixtures import SPOILT, encoded, picture, published, spoilt, write, write_jsonl

from napo.config.variants import BIASED
from napo.data import sources
from napo.data.rows import (
    load_rows,
    shards,
    skipped,
    write_reference,
    write_rows,
    write_scores,
    write_shard,
)
from napo.errors import NapoError
from napo.models.generate import Generated


def answers(rows):
    texts = [f"{row['question']} Yes." for row in rows]
    return {
        name: [Generated(text, 3, name == "vision_biased") for text in texts] for name in BIASED
    }


def build(source, target, **options):
    write_rows(source, target, answers, **{"size": 3, **options})
    return load_rows(target)


def parts(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_parts_do_not_depend_on_the_sources_files(tmp_path, kind):
    rows = [published(number) for number in range(10)]
    if kind == "parquet":
        source = write(tmp_path / "source", rows[:1], rows[1:])
    else:
        source = write_jsonl(tmp_path / "source", rows)
    assert sources.number_of_rows(source) == sources.survey(source).rows == 10
    data = build(source, tmp_path / "rows")
    assert data["id"][:] == [str(number) for number in range(10)]
    assert [len(pq.read_table(path)) for path in shards(tmp_path / "rows")] == [3, 3, 3, 1]
    assert data[7]["image"].getpixel((0, 0)) == (7, 50, 60)
    assert data[7]["language_biased"] == "What is 7? Yes." and data[7]["origin_dataset"] == "made"
    assert build(source, tmp_path / "first", count=4)["id"][:] == ["0", "1", "2", "3"]


@pytest.mark.kind("rows as people have them")
def test_rows_that_have_the_references_columns_are_refused(tmp_path, result):
    write_shard(tmp_path / "rows" / "a.parquet", [published(1, id="1", chosen_logp="-3.5")])
    write_reference(tmp_path / "reference" / "a.parquet", [{"id": "1", "chosen_logp": -1.0}])
    with pytest.raises(NapoError, match=r"rows has the column chosen_logp, as .* has; dr") as error:
        load_rows(tmp_path / "rows", tmp_path / "reference")
    result(error.value)


def test_several_processes_make_the_parts_of_one(tmp_path):
    source = write(tmp_path / "source", [published(n) for n in range(11)])
    build(source, tmp_path / "one")
    for rank in range(3):
        write_rows(source, tmp_path / "many", answers, size=3, worker=(rank, 3))
    assert parts(tmp_path / "many") == parts(tmp_path / "one")


def test_building_makes_only_the_parts_that_are_missing(tmp_path):
    source, target = write(tmp_path / "source", [published(n) for n in range(3)]), tmp_path / "rows"
    calls = []

    def make(rows):
        calls.append(rows[0]["id"])
        return answers(rows)

    write_rows(source, target, make, size=1)
    before = parts(target)
    (target / "part-00001.parquet").unlink()
    write_rows(source, target, make, size=1)
    assert calls == ["0", "1", "2", "1"] and parts(target) == before


def test_images_keep_the_bytes_they_came_in(tmp_path):
    jpeg = encoded(picture(), "JPEG")
    source = write(tmp_path / "source", [published(1, image={"bytes": jpeg, "path": "x.jpg"})])
    build(source, tmp_path / "rows")
    (image,) = pq.read_table(tmp_path / "rows" / "part-00000.parquet")["image"].to_pylist()
    assert image == {"bytes": jpeg, "path": "x.jpg"}


def test_large_data_is_mapped_and_reads_the_same(tmp_path, monkeypatch):
    source = write(tmp_path / "source", [published(n) for n in range(5)])
    small = build(source, tmp_path / "rows")
    monkeypatch.setattr("napo.data.rows.IN_MEMORY_BYTES", 0)
    large = load_rows(tmp_path / "rows")
    assert large.cache_files and not small.cache_files
    for ours, theirs in zip(large, small, strict=True):
        assert ours.pop("image").tobytes() == theirs.pop("image").tobytes()
        assert ours == theirs


@pytest.mark.parametrize("name", SPOILT)
def test_a_row_that_cannot_be_used_is_one_sentence_and_the_rest_is_safe(tmp_path, name):
    changes, reason = SPOILT[name]
    source = spoilt(tmp_path, changes)
    with pytest.raises(NapoError, match=f"(?i)row .*{reason}") as caught:
        build(source, tmp_path / "stopped")
    assert "\n" not in str(caught.value)
    # Texts are checked before the first part, images when their part is built.
    assert (tmp_path / "stopped" / "part-00000.parquet").is_file() == ("image" in changes)
    data = build(source, tmp_path / "rows", bad_rows="skip")
    assert len(data) == 7 and "4" not in data["id"][:]
    (left_out,) = skipped(tmp_path / "rows")
    assert left_out["row"] == "4" and reason in left_out["reason"]


def test_released_biased_responses_are_kept_and_only_the_others_made(tmp_path):
    rows = [published(n, question_only=None, image_only=None) for n in range(4)]
    rows[1] |= {"question_only": "Blue.", "image_only": "A picture."}
    rows[2] |= {"question_only": "Red.", "image_only": " "}
    incomplete = []

    def make(bare):
        incomplete.extend(row["id"] for row in bare)
        return answers(bare)

    write_rows(write(tmp_path / "source", rows), tmp_path / "rows", make, size=3)
    data = load_rows(tmp_path / "rows")
    assert incomplete == ["0", "2", "3"]
    assert data[1]["language_biased"] == "Blue." and data[1]["vision_biased"] == "A picture."
    assert data[2]["vision_biased"] == "What is 2? Yes."
    assert data["vision_biased_cut"][:] == [True, False, True, True]


@pytest.mark.kind("a stage seals what the next one refuses")
@pytest.mark.parametrize(
    "text", ["", " ", "\n\t", "\u200b", "\u00a0\u2060", "\ufeff", "\u3164"], ids=ascii
)
def test_a_blank_answer_stops_the_build_or_its_row_is_left_out(tmp_path, text, result):
    source = write(tmp_path / "source", [published(n) for n in range(5)])

    def make(rows):
        made = answers(rows)
        for index, row in enumerate(rows):
            if row["id"] == "4":
                made["vision_biased"][index] = Generated(text, 1, False)
        return made

    with pytest.raises(NapoError, match=r"^Row 4: the model's vision_biased is empty \(") as caught:
        write_rows(source, tmp_path / "stopped", make, size=3)
    assert str(caught.value).isprintable()
    assert len(shards(tmp_path / "stopped")) == 1  # the part before it is kept
    write_rows(source, tmp_path / "rows", make, size=3, bad_rows="skip")
    assert load_rows(tmp_path / "rows")["id"][:] == ["0", "1", "2", "3"]
    (left_out,) = skipped(tmp_path / "rows")
    assert left_out == {"id": "4", "row": "4", "reason": str(caught.value)}
    result(caught.value)


@pytest.mark.kind("a stage seals what the next one refuses")
def test_a_released_response_of_no_width_is_made_anew(tmp_path):
    rows = [published(n, question_only="Red.", image_only="\u200b") for n in range(2)]
    data = build(write(tmp_path / "source", rows), tmp_path / "rows")
    assert data["vision_biased"][:] == ["What is 0? Yes.", "What is 1? Yes."]


def test_a_cut_of_any_response_keeps_its_truth_value(tmp_path):
    rows = [published(n, chosen_cut=n == 1) for n in range(2)]
    data = build(write(tmp_path / "source", rows), tmp_path / "rows")
    assert data["chosen_cut"][:] == [False, True]


def test_rows_left_out_do_not_move_the_others_to_other_parts(tmp_path):
    build(write(tmp_path / "all", [published(n) for n in range(8)]), tmp_path / "a")
    build(spoilt(tmp_path, {"question": ""}), tmp_path / "b", bad_rows="skip")
    for name in ("part-00000.parquet", "part-00002.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_part_without_a_usable_row_is_empty_and_loads(tmp_path):
    rows = [published(n, question="" if 3 <= n < 6 else "What?") for n in range(8)]
    data = build(write(tmp_path / "source", rows), tmp_path / "rows", bad_rows="skip")
    assert data["id"][:] == ["0", "1", "2", "6", "7"]


def test_a_source_of_bad_rows_only_is_an_error_even_under_skip(tmp_path):
    source = write(tmp_path / "source", [published(n, question="") for n in range(3)])
    with pytest.raises(NapoError, match=r"row 0.*\(2 more rows cannot be used"):
        build(source, tmp_path / "rows", bad_rows="skip")


def test_datasets_reads_the_shards_with_their_features(tmp_path):
    import datasets

    path = tmp_path / "shard-0.parquet"
    write_shard(path, [published(1)])
    data = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert isinstance(data.features["image"], datasets.Image)
    assert data[0]["image"].size == (8, 8)


def test_scores_are_made_part_by_part_and_joined_to_the_rows_by_id(tmp_path):
    build(write(tmp_path / "source", [published(n) for n in range(5)]), tmp_path / "rows")
    calls = []

    def make(rows):
        ids = [row["id"] for row in rows]
        calls.append(ids)
        return [{"id": id, "chosen_logp": -float(id), "chosen_tokens": 2} for id in reversed(ids)]

    for worker in ((1, 2), (0, 2), (0, 1)):
        write_scores(tmp_path / "rows", tmp_path / "scores", make, worker=worker)
    assert calls == [["3", "4"], ["0", "1", "2"]]
    data = load_rows(tmp_path / "rows", tmp_path / "scores")
    assert data["chosen_logp"][:] == [0, -1, -2, -3, -4] and data[0]["image"].mode == "RGB"


def test_a_row_without_reference_is_named(tmp_path):
    write_shard(tmp_path / "rows/s.parquet", [published(n, id=str(n)) for n in (1, 2)])
    write_reference(tmp_path / "reference/s.parquet", [{"id": "1", "chosen_logp": -1.0}])
    with pytest.raises(NapoError, match=r"no log-probs for 1 rows \(2\)"):
        load_rows(tmp_path / "rows", tmp_path / "reference")


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet file"):
        load_rows(tmp_path)
