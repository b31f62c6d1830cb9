"""Rows from the web: which are read, and which are refused with a sentence."""

import pytest
from source_fixtures import published, write

from napo.data import sources
from napo.errors import NapoError


def test_a_missing_column_names_file_and_column(tmp_path):
    rows = [{k: v for k, v in published(1).items() if k != "chosen"}]
    with pytest.raises(NapoError, match=r"RLAIF-V-Dataset_000.parquet lacks the column chosen"):
        sources.survey(write(tmp_path, rows))
    (tmp_path / "RLAIF-V-Dataset_000.parquet").unlink()
    (tmp_path / "a.jsonl").write_text('{"image": "x.png", "question": "?"}\n')
    with pytest.raises(NapoError, match=r"a.jsonl, line 1, lacks chosen, rejected"):
        sources.survey(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"image": \n')
    with pytest.raises(NapoError, match=r"a.jsonl, line 1, is not JSON"):
        sources.survey(tmp_path)


def test_a_truncated_shard_is_named(tmp_path):
    path = write(tmp_path, [published(1)]) / "RLAIF-V-Dataset_000.parquet"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(NapoError, match=r"_000.parquet cannot be read"):
        sources.survey(tmp_path)


def test_a_column_name_with_a_wrong_bit_is_one_sentence(tmp_path):
    path = write(tmp_path, [published(1)]) / "RLAIF-V-Dataset_000.parquet"
    no_utf8 = path.read_bytes().replace(b"question", b"ques\xf4ion")
    path.write_bytes(no_utf8)
    for look in (sources.survey, sources.number_of_rows):
        with pytest.raises(NapoError, match=r"_000\.parquet cannot be read as Parquet") as told:
            look(tmp_path)
        assert str(told.value).isprintable()


@pytest.mark.parametrize("letter", ["\x1b", "\x9b", "\n", "\0"])
def test_an_id_with_a_control_character_is_refused_and_shown_escaped(tmp_path, letter):
    rows = [published(1), published(2, idx=f"a{letter}[31mb")]
    found = sources.survey(write(tmp_path / "source", rows))
    assert list(found.bad) == [1] and found.bad[1].isprintable()
    escaped = letter.encode("unicode_escape").decode()
    assert f"row a{escaped}[31mb (number 1) has " in found.bad[1]
    assert found.bad[1].endswith("; give another.")
    spoilt = {"id": f"a{letter}b", "image": b"none"}
    with pytest.raises(NapoError, match=r"^Row a\\.*b: its image cannot be used") as told:
        sources.decode(spoilt)
    assert str(told.value).isprintable()


def test_an_id_in_any_script_is_one(tmp_path):
    rows = [published(1, idx="Größe 7"), published(2, idx="図-３"), published(3, idx="a👩‍🚀b")]
    assert not sources.survey(write(tmp_path, rows)).bad


def test_an_empty_folder_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path)
    with pytest.raises(NapoError, match=r"holds no .parquet or .jsonl file"):
        sources.survey(tmp_path / "nowhere")


def test_the_released_column_names_are_understood(tmp_path):
    rows = [published(1, question_only="Blue.", image_only="A picture.")]
    (row,) = sources.texts(write(tmp_path, rows))
    assert row["language_biased"] == "Blue." and row["vision_biased"] == "A picture."
