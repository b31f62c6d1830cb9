"""YAML in which a mistake does not pass: no key twice, no dates or sets, plain text files only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from napo.errors import NapoError

_TAG = "tag:yaml.org,2002:"
_PLAIN = tuple(_TAG + kind for kind in ("str", "int", "float", "bool", "null", "seq", "map"))
_LACKS = {
    f"{_TAG}int": "is no whole number below 2^63",
    f"{_TAG}float": "is no number",
    f"{_TAG}bool": "is neither true nor false",
}
_SHOWN = 40  # characters of a wrong value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, for texts, numbers, truth values, lists and sections only.

    PyYAML takes the last of two equal keys; this one refuses them. What looks like a date is a
    text, as a profile's title or an id is meant to be.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own name
        first: [(tag, pattern) for tag, pattern in kinds if tag in _PLAIN]
        for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag in _PLAIN
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.deep_construct = True  # a list or section that holds itself is then an error

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                raise yaml.MarkedYAMLError(problem="a key is no word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _checked(tag: str) -> Callable[[_Loader, yaml.Node], Any]:
    """PyYAML's constructor of a scalar, for which what is no such thing is an error of YAML."""
    construct = yaml.SafeLoader.yaml_constructors[tag]

    def checked(loader: _Loader, node: yaml.Node) -> Any:
        try:
            value = construct(loader, node)
            if type(value) is int and abs(value) >= 2**63:
                raise ValueError
        except (ValueError, IndexError, KeyError, OverflowError):
            text = node.value if len(node.value) <= _SHOWN else f"{node.value[:_SHOWN]} ..."
            raise yaml.MarkedYAMLError(
                problem=f"{text!r} {_LACKS[tag]}", problem_mark=node.start_mark
            ) from None
        return value

    return checked


def _refuse(loader: _Loader, node: yaml.Node) -> None:
    kind = node.tag.replace(_TAG, "!!")
    raise yaml.MarkedYAMLError(
        problem=f"{kind!r} is read nowhere here, only texts, numbers, lists and sections are",
        problem_mark=node.start_mark,
    )


for _tag in _LACKS:
    _Loader.add_constructor(_tag, _checked(_tag))
_Loader.add_constructor(None, _refuse)  # of any other tag


def read(path: Path) -> dict[str, Any]:
    """A YAML file's keys and values; of an empty file, none.

    Raises:
        NapoError: when it is no text, no YAML, or holds something else, naming the line.
    """
    try:
        content = _Loader(_text(path)).get_single_data() or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        where = f"line {mark.line + 1}: " if mark else ""
        raise NapoError(f"{path.name} is not valid YAML ({where}{problem}); correct it.") from None
    except RecursionError:
        raise NapoError(f"{path.name} is nested too deeply; profiles have sections only.") from None
    if not isinstance(content, dict):
        raise NapoError(f"{path.name} must hold keys and values, such as 'seeds: \"0,1,2\"'.")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise NapoError(f"{path.name} is not UTF-8 text; save it as such.") from None
    except (OSError, ValueError) as error:  # ValueError: a null or half a character in its name
        name = path.name if len(path.name) <= 100 else f"{path.name[:100]} ..."
        problem = getattr(error, "strerror", None) or "it is no file's name"
        raise NapoError(f"{name!r} cannot be read ({problem}); name a file.") from None
