import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo.errors import NapoError
from napo.workspace.files import atomic_file, fingerprint, read_json

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_an_error_leaves_no_half_file(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_earlier_file_unchanged(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"


def test_a_temporary_file_keeps_the_suffix(tmp_path):
    with atomic_file(tmp_path / "fig.pdf") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".pdf"


@given(json_values)
def test_a_fingerprint_survives_a_trip_through_json(value):
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


@pytest.mark.kind("raw tracebacks from damaged inputs")
@pytest.mark.parametrize(
    ("content", "kind", "part"),
    [
        (b'{"a": [1, 2, "3"]}', dict[str, list[int]], r"('a', entry 3 is '3'; it should be a val"),
        (b'{"a": true}', dict[str, int], "('a' is True; it should be a valid integer"),
        (b'{"a": 1.0}', dict[str, int], "('a' is 1.0; it should be a valid integer"),
        (b'{"a": 1,\n "b" 2}', dict, "(not valid JSON, line 2: Expecting ':' delimiter"),
        (b'{"a": "b', dict, "(it is cut short"),
        (b"[1, 2", list, "(it is cut short"),
        (b'{"a": "\xe9"}', dict, "(its line 1 is not UTF-8 text, see byte 0xe9; save it as UTF-8"),
        (b"\xef\xbb\xbf ", dict, "(it is empty"),
    ],
)
def test_json_of_another_shape_is_a_sentence_with_its_key(tmp_path, content, kind, part, result):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(NapoError) as error:
        read_json(tmp_path / "a.json", kind, "get it again")
    result(error.value)
    start, end = f"{tmp_path}/a.json is damaged {part}", "; get it again."
    assert str(error.value).startswith(start) and str(error.value).endswith(end)


def test_what_is_read_is_unchanged_and_may_hold_more_keys(tmp_path):
    content = {"a": 1, "b": [{"c": None}], "d": float("inf")}
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json", dict[str, Any]) == content


def test_a_folder_in_a_files_place_is_a_sentence(tmp_path):
    with pytest.raises(NapoError, match=r"cannot be read \(Is a directory\); get it again"):
        read_json(tmp_path, remedy="get it again")


def test_json_has_the_same_bytes_under_another_locale(tmp_path):
    code = "import sys; from napo.workspace.files import *; "
    code += "write_json(Path(sys.argv[1]), {'a': '\\u03b1 Gr\\u00f6\\u00dfe'})"
    for name, locale in (("one.json", "C.UTF-8"), ("two.json", "C")):
        call = [sys.executable, "-X", "utf8=0", "-c", code, str(tmp_path / name)]
        alone = {"PATH": os.environ["PATH"], "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0"}
        subprocess.run(call, env=alone, check=True)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_json(tmp_path / "one.json") == {"a": "α Größe"}
