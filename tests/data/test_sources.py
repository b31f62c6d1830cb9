"""Rows from the web: which are read, and which are refused with a sentence."""

import pytest
from source_fixtures import published, write

from napo.data import sources
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


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path)
