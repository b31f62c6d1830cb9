"""Rows from the web: which are read, and which are refused with a sentence."""

import pytest
from source_fixtures import published, write, write_jsonl

from napo.data import sources
from napo.data.rows import load_rows
from napo.errors import NapoError


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"image": "x.png", "question": "?"}', "lacks chosen, rejected"),
        ('{"image":', r"is damaged \(it is cut short\); correct"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path, line, problem):
    (tmp_path / "a.jsonl").write_text(line + "\n")
    with pytest.raises(NapoError, match=f"a.jsonl, line 1, {problem}"):
        sources.survey(tmp_path)


def test_a_missing_column_names_file_and_column(tmp_path):
    rows = [{k: v for k, v in published(1).items() if k != "chosen"}]
    with pytest.raises(NapoError, match=r"RLAIF-V-Dataset_000.parquet lacks the column chosen"):
        sources.survey(write(tmp_path, rows))


@pytest.mark.parametrize("damage", [(b"question", b"ques\xf4ion"), (b"PAR1", b"")])
def test_a_damaged_shard_is_one_sentence(tmp_path, damage):
    path = write(tmp_path, [published(1)]) / "RLAIF-V-Dataset_000.parquet"
    path.write_bytes(path.read_bytes().replace(*damage))
    with pytest.raises(NapoError, match=r"_000\.parquet cannot be read as Parquet") as error:
        sources.number_of_rows(tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("letter", ["\x1b", "\n"])
def test_an_id_with_a_control_character_is_refused_and_shown_escaped(tmp_path, letter):
    rows = [published(1), published(2, idx=f"a{letter}[31mb")]
    bad = sources.survey(write(tmp_path / "source", rows)).bad
    escaped = letter.encode("unicode_escape").decode()
    assert list(bad) == [1] and bad[1].isprintable()
    assert f"row a{escaped}[31mb (number 1) has " in bad[1] and bad[1].endswith("; give another.")
    with pytest.raises(NapoError, match=r"^Row a\\.*b: its image cannot be used") as error:
        sources.decode({"id": f"a{letter}b", "image": b"none"})
    assert str(error.value).isprintable()


def test_an_id_in_any_script_is_one(tmp_path):
    rows = [published(1, idx="Größe 7"), published(2, idx="図-３"), published(3, idx="a👩‍🚀b")]
    assert not sources.survey(write(tmp_path, rows)).bad


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ["train-00000-of-00003", "train-00002-of-00003"],
            r"lacks train-00001-of-00003\.parquet; get",
        ),
        (
            ["a-1-of-4", "a-4-of-4"],
            r"lacks a-2-of-4\.parquet and 1 more files; get what is missing",
        ),
        (["a-0-of-2", "a-1-of-2", "b-0-of-2"], r"lacks b-1-of-2\.parquet"),
        (
            ["x-00001-of-99999999999"],
            r"lacks x-00000000000-of-99999999999\.parquet and 99999999997",
        ),
        (["a-0-of-2", "a-1-of-2", "a-1-of-2 (1)"], r"lacks a-0-of-2 \(1\)\.parquet"),
    ],
)
def test_a_folder_without_a_file_that_the_names_count_is_refused(tmp_path, names, sentence, result):
    for number, name in enumerate(names):
        shard = write(tmp_path / "shard", [published(number)]) / "RLAIF-V-Dataset_000.parquet"
        shard.rename(tmp_path / f"{name}.parquet")
    for use in (sources.survey, sources.number_of_rows, sources.files, load_rows):
        with pytest.raises(NapoError, match=sentence) as error:
            use(tmp_path)
    result(error.value)


@pytest.mark.parametrize("first", [0, 1])
def test_complete_shards_are_read_whether_they_count_from_0_or_1(tmp_path, first):
    for number in range(3):
        shard = write(tmp_path / "shard", [published(number)]) / "RLAIF-V-Dataset_000.parquet"
        shard.rename(tmp_path / f"train-{number + first:05d}-of-00003.parquet")
    write(tmp_path, [published(7)])  # a name without a number of files
    assert sources.survey(tmp_path).rows == 4


@pytest.mark.kind("rows as people have them")
def test_parquet_and_jsonl_together_are_refused(tmp_path, result):
    write_jsonl(write(tmp_path, [published(1)]), [published(2)])
    with pytest.raises(NapoError, match=r"holds RLAIF-V-Dataset_000\.parquet and rows\.") as error:
        sources.survey(tmp_path)
    result(error.value)


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize("name", ["chosen_logp", "vision_biased_tokens"])
@pytest.mark.parametrize("form", [write, write_jsonl])
def test_a_source_with_a_column_of_the_references_scores_is_refused(tmp_path, form, name, result):
    problems = sources.survey(form(tmp_path, [published(1, **{name: 7})])).bad
    assert f"has a {name}, which scoring adds for the reference; rename" in problems[0]
    result(problems[0])


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize("address", ["https://x.org/" + "x/" * 900, "iVBORw0KGgo/" * 20_000])
def test_an_image_that_is_an_address_or_base64_is_one_short_sentence(tmp_path, address):
    row = {"id": "1", "folder": str(tmp_path), "image": address}
    with pytest.raises(NapoError, match="its image cannot be used, its ") as error:
        sources.decode(row)
    assert len(str(error.value)) < 200


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path)
