"""Entries that users can add to: losses, variants, benchmarks, model families."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from napo.errors import NapoError, unknown


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

    Registering an equal entry again changes nothing, so a notebook cell can be run twice.

    Raises:
        NapoError: when another entry has this name.
    """
    known = entry.registry
    if entry.name in known and known[entry.name] != entry:
        raise NapoError(
            f"There is already a {known.kind} {entry.name!r} that differs; choose another name."
        )
    known[entry.name] = entry
    return entry


def look_up(dotted: str, where: str) -> Callable[..., Any]:
    """The function behind "package.module:function".

    Args:
        dotted: the path of the function.
        where: the setting or entry that names it, for the error message.

    Raises:
        NapoError: when the module cannot be imported or has no such function.
    """
    module, _, name = dotted.partition(":")
    try:
        function = getattr(import_module(module), name)
    except Exception as error:  # a module may do anything when it is imported
        problem = " ".join(str(error).split()) or type(error).__name__
        raise NapoError(
            f"{where} names {dotted!r}, which cannot be imported ({problem}); "
            "write it as package.module:function."
        ) from None
    if not callable(function):
        raise NapoError(
            f"{where} names {dotted!r}, which is not a function; "
            "write it as package.module:function."
        )
    return function
