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
        ("word", "word"),
        ("yes", "yes"),  # YAML 1.2 has the truth values true and false only
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("7", 7),
        ("0o7", 7),
        ("-9223372036854775807", -9223372036854775807),
        ("1.5", 1.5),
        ("1e-3", 0.001),
        ("5e-7", 5e-7),
        ("5.0e-7", 5e-7),
        ("12:30", "12:30"),
        ("'2024-01-01'", "2024-01-01"),
        ("!!float 3", 3.0),
        ("!!str 3", "3"),
        ("[1, a]", [1, "a"]),
        ("{b: {c: 1}}", {"b": {"c": 1}}),
    ],
)
def test_values_have_the_types_of_yaml_1_2(tmp_path, text, value):
    read_value = read(tmp_path, f"a: {text}")["a"]
    assert (read_value, type(read_value)) == (value, type(value))


def test_a_value_may_be_named_and_repeated(tmp_path):
    assert read(tmp_path, "a: &same {b: 1}\nc: *same") == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_empty_file_has_no_keys(tmp_path):
    assert read(tmp_path, "# nothing yet") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [", r"line 2: expected the node content"),
        ("a: 1\na: 2", r"line 2: found duplicate key \"a\""),
        ("b: {a: 1, a: 2}", r"line 1: found duplicate key \"a\""),
        ("a: 1\nb: 2024-01-01", r"line 2: a value of type timestamp is not allowed; .* quotes"),
        ("a: !!set {b, c}", r"line 1: a value of type set is not allowed"),
        ("a: !!python/object/apply:os.system ['true']", r"line 1: .*os.system is not allowed"),
        ("a: 1\nb: &b [*b]", r"line 2: an alias contains itself"),
        ("a: &a {b: *a}", r"line 1: an alias contains itself"),
        ("1: 2", r"line 1: a key is not a text; put it in quotes"),
        ("a: [{true: 1}]", r"line 1: a key is not a text"),
        ("a: 1\nb: !!float x", r"line 2: 'x' is not a valid float"),
        ("a: !!int ''", r"line 1: '' is not a valid int"),
        ("a: 9223372036854775808", r"line 1: '9223372036854775808' is not a valid int"),
        (f"a: 0x{'f' * 5000}", r"line 1: '0xf{38}' is not a valid int"),
        ("a: \a", r"unacceptable character #x0007"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_line(tmp_path, text, problem):
    with pytest.raises(
        NapoError, match=rf"^mine.yaml is not valid YAML \({problem}.*correct it\.$"
    ):
        read(tmp_path, text)


def test_deep_nesting_is_refused(tmp_path):
    with pytest.raises(NapoError, match="nested too deeply"):
        read(tmp_path, "[" * 3000)


@pytest.mark.parametrize("text", ["- 1\n- 2", "just text"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    with pytest.raises(NapoError, match=r"mine.yaml must hold keys and values"):
        read(tmp_path, text)


def test_a_file_that_is_no_utf_8_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NapoError, match=r"mine.yaml is damaged \(it is UTF-16 text; save it as"):
        strict_yaml.read(tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", "\ud800"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path, name):
    with pytest.raises(NapoError, match=r"cannot be read .*; name a file"):
        strict_yaml.read(tmp_path / name)


def test_aliases_of_aliases_are_read_without_writing_them_out(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 8)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    assert len(strict_yaml.read(path)["a7"]) == 9
