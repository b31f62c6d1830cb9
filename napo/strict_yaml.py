"""YAML in which a mistake does not pass: no key twice, no dates or sets, plain text files only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from napo.errors import NapoError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes the last of two equal keys; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a key is no word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[str, Any]:
    """A YAML file's keys and values; of an empty file, none.

    Raises:
        NapoError: when it is no text, no YAML, or holds something else, naming the line.
    """
    try:
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data() or {}
    except UnicodeDecodeError:
        raise NapoError(f"{path.name} is not UTF-8 text; save it as such.") from None
    except OSError as error:
        raise NapoError(f"{path.name} cannot be read ({error.strerror}); name a file.") from None
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
