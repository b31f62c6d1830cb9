"""What is read from YAML, and as what; what is refused stands in tests/test_bad_inputs.py."""

import pytest

from napo.config import strict_yaml
from napo.errors import NapoError


def read(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return strict_yaml.read(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        ("2024-99-99", "2024-99-99"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("=", "="),
        ("word", "word"),
        ("7", 7),
        ("-9223372036854775807", -9223372036854775807),
        ("1.5", 1.5),
        ("on", True),
        ("~", None),
        ("[1, a]", [1, "a"]),
        ("{b: {c: 1}}", {"b": {"c": 1}}),
        ("!!float 3", 3.0),
        ("!!str 3", "3"),
    ],
)
def test_texts_numbers_truth_values_lists_and_sections_are_read(tmp_path, text, value):
    assert read(tmp_path, f"a: {text}") == {"a": value}


def test_a_value_may_be_named_and_repeated(tmp_path):
    assert read(tmp_path, "a: &same {b: 1}\nc: *same") == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_error_names_the_line(tmp_path):
    with pytest.raises(
        NapoError, match=r"mine.yaml is not valid YAML \(line 3: 'x' is no number\)"
    ):
        read(tmp_path, "a: 1\nb: 2\nc: !!float x")


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_has_is_a_sentence(tmp_path, name):
    with pytest.raises(NapoError, match=r"cannot be read .*; name a file"):
        strict_yaml.read(tmp_path / name)
