"""Entries that users can add to: losses, variants, benchmarks, model families."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from napo.errors import NapoError, unknown

NAME = "[A-Za-z0-9][A-Za-z0-9._+-]*"  # a name is a folder, a file and a word of a command line


class Registry(dict[str, Any]):
    """Entries by name. An unknown name is an error that suggests the nearest one.

    Args:
        kind: the word for an entry in error messages, such as "variant".
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __missing__(self, name: str) -> Any:
        raise unknown(self.kind, name, self)


class Entry:
    """Base of everything that `register` takes; each kind of entry has its own registry."""

    registry: ClassVar[Registry]
    name: str


Kind = TypeVar("Kind", bound=Entry)


def register(entry: Kind) -> Kind:
    """Make a loss, a variant, a benchmark or a model family known by its name.

    Registering an equal entry again changes nothing, so a notebook cell can run twice.

    Raises:
        NapoError: when the name is no file name, or another entry has it.
    """
    registry = entry.registry
    if not re.fullmatch(NAME, entry.name):
        raise NapoError(
            f"The {registry.kind} name {entry.name!r} cannot be a file name; "
            "use letters, digits and . _ + - only."
        )
    if registry.get(entry.name, entry) != entry:
        raise NapoError(
            f"Another {registry.kind} is already called {entry.name!r}; choose another name."
        )
    registry[entry.name] = entry
    return entry


def look_up(path: str, where: str) -> Callable[..., Any]:
    """The function behind "package.module:function".

    Args:
        path: the path of the function.
        where: the setting or entry that names it, for the error message.

    Raises:
        NapoError: when the module cannot be imported or has no such function.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(import_module(module), name)
        if not callable(function):
            raise TypeError("it is not a function")
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        problem = " ".join(str(error).split()) or type(error).__name__
        raise NapoError(
            f"{where} names {path!r}, which cannot be used ({problem}); "
            "write it as package.module:function."
        ) from None
    return function
