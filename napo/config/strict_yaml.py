"""YAML 1.2 files of texts, numbers, truth values, lists and sections; mistakes are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import Node

from napo.errors import NapoError
from napo.workspace.files import decoded

TAG = "tag:yaml.org,2002:"
KINDS = ("str", "int", "float", "bool", "null", "seq", "map")


class StrictConstructor(SafeConstructor):
    """Builds the values of `KINDS`. Every error has the line of its value."""

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """The value of a node."""
        kind = node.tag.removeprefix(TAG)
        text = node.value[:40] if isinstance(node.value, str) else "it"
        problem = f"{text!r} is not a valid {kind}"
        try:
            if node in self.recursive_objects:
                problem = "an alias contains itself"
                raise ValueError
            if kind not in KINDS:
                problem = f"a value of type {kind} is not allowed; a text needs quotes"
                raise ValueError
            value = super().construct_object(node, deep=True)
            if kind == "int" and abs(value) >= 2**63:
                raise ValueError
            if kind == "map" and not all(isinstance(key, str) for key in value):
                problem = "a key is not a text; put it in quotes"
                raise ValueError
        except (ValueError, LookupError, TypeError):
            raise MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None
        return value


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file; an empty file has none.

    Raises:
        NapoError: when the file cannot be read or is not such YAML, with the line.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = StrictConstructor
    try:
        text = path.read_bytes()
        content = reader.load(decoded(text, path.name, "correct it")) if text.strip() else None
    except (OSError, ValueError) as error:  # ValueError: no file can have this name
        problem = getattr(error, "strerror", None) or "no file can have this name"
        raise NapoError(f"{path.name[:100]!r} cannot be read ({problem}); name a file.") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise NapoError(f"{path.name} is not valid YAML ({line}{problem}); correct it.") from None
    except RecursionError:
        raise NapoError(f"{path.name} is nested too deeply; remove some levels.") from None
    if not isinstance(content or {}, dict):
        raise NapoError(f"{path.name} must hold keys and values, such as 'seeds: \"0,1,2\"'.")
    return content or {}
