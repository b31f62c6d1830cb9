from dataclasses import dataclass
from typing import ClassVar

import pytest

from napo.config.registry import Entry, Registry, look_up, register
from napo.config.settings import World
from napo.errors import NapoError


@dataclass(frozen=True)
class Colour(Entry):
    registry: ClassVar[Registry] = Registry("colour")

    name: str
    code: int = 0


@pytest.fixture(autouse=True)
def empty():
    Colour.registry.clear()


def test_an_entry_is_known_by_its_name():
    entry = register(Colour("red"))
    assert Colour.registry["red"] is entry


def test_an_unknown_name_suggests_the_nearest():
    register(Colour("red"))
    with pytest.raises(NapoError, match=r"Unknown colour 'read'. Did you mean 'red'\? Known: red"):
        Colour.registry["read"]


def test_an_equal_entry_may_be_registered_again():
    register(Colour("red", 1))
    assert register(Colour("red", 1)) == Colour.registry["red"]


def test_another_entry_of_the_same_name_is_refused():
    register(Colour("red", 1))
    with pytest.raises(NapoError, match="Another colour is already called 'red'; choose another"):
        register(Colour("red", 2))
    assert Colour.registry["red"].code == 1


@pytest.mark.parametrize("name", ["", "a b", "../a", "-p", "a/b"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(NapoError, match=f"The colour name '{name}' cannot be a file name"):
        register(Colour(name))


def test_a_function_is_found_by_its_path():
    from os.path import join

    assert look_up("os.path:join", "here") is join


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("napo.nowhere:f", "No module named 'napo.nowhere'"),
        ("os.path:joint", "module 'posixpath' has no attribute 'joint'"),
        ("os.path:sep", "it is not a function"),
        ("failing:f", "no disk"),
    ],
)
def test_a_path_without_a_function_names_the_key(path, problem, tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("raise RuntimeError('no disk')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NapoError, match=rf"world.make_rows names '{path}', which .*{problem}"):
        World(make_rows=path).function("make_rows")


def test_a_world_has_no_function_where_it_names_none():
    assert World().function("make_rows") is None
