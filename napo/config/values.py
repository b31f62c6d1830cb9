"""Kinds of values that settings have: numbers in a range, names in a registry, plugins."""

from __future__ import annotations

import importlib
import re
import reprlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from napo.config.benchmarks import BENCHMARKS
from napo.config.registry import NAME, Registry
from napo.config.variants import VARIANTS
from napo.errors import NapoError, unknown

Items = TypeVar("Items", bound=tuple[object, ...])
SHOWN = reprlib.Repr()  # shortens a wrong value in an error message
SHOWN.maxlevel, SHOWN.maxstring, SHOWN.maxother = 2, 100, 100


def matching(pattern: str, remedy: str) -> AfterValidator:
    """A check that a text matches a pattern from end to end; the error is the remedy."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(remedy)
        return text

    return AfterValidator(check)


def entry_of(registry: Registry) -> AfterValidator:
    """A check that a name is in a registry."""

    def check(name: str) -> str:
        if name not in registry:
            raise ValueError(str(unknown(registry.kind, name, registry)).rstrip("."))
        return name

    return AfterValidator(check)


def unique(names: Items) -> Items:
    """The names, if each is there once."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is there twice; name each once")
    return names


def size_name(name: str) -> str:
    """The name of a size that some benchmark of the icon world has."""
    known = [size for benchmark in BENCHMARKS.values() for size in benchmark.sizes]
    if name not in known:
        raise ValueError(str(unknown("size", name, known)).rstrip("."))
    return name


def load_plugin(module: str) -> str:
    """Import a plugin, which registers its entries, and return its name.

    Raises:
        NapoError: when the module cannot be imported, or registers an entry that is refused.
    """
    try:
        importlib.import_module(module)
    except NapoError as error:
        raise NapoError(f"The plugin {module} is refused: {error}") from None
    except (Exception, SystemExit) as error:  # a module may do anything when it is imported
        problem = " ".join(str(error).split()) or type(error).__name__
        raise NapoError(
            f"The plugin {module} cannot be imported ({problem}); name a module that is installed "
            "or lies beside the file that names it."
        ) from None
    return module


def seeds(text: str) -> list[int]:
    """The seeds of a parameter such as "0,1,2".

    Raises:
        NapoError: when a piece is not a whole number, or a seed is there twice.
    """
    start = f"seeds is {SHOWN.repr(text)}; "
    try:
        values = [int(piece) for piece in str(text).split(",")]
    except ValueError:
        raise NapoError(
            start + "write whole numbers with commas between them, such as 0,1,2."
        ) from None
    if min(values) < 0 or max(values) >= 2**32:
        raise NapoError(start + "a seed is 0 or larger, and below 2^32.")
    if len(set(values)) < len(values):
        raise NapoError(start + "name each seed once.")
    return values


def seed_text(value: Any) -> str:
    """Seeds as the text of a parameter, from a text, a number or a list of numbers."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    seeds(text)
    return text


# Strict: pydantic would take the truth value `true` for the number 1.
Integer = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, gt=0)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]  # what torch and numpy take
Seeds = Annotated[str, BeforeValidator(seed_text)]  # such as "0,1,2"
Number = Annotated[float, Field(strict=True, ge=0)]
Positive = Annotated[float, Field(strict=True, gt=0)]
Share = Annotated[float, Field(strict=True, ge=0, le=1)]

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager", "flex_attention"]
ImageMode = Literal["crop", "pad"]

FileName = Annotated[
    str, Field(max_length=100), matching(NAME, "use letters, digits and . _ + - only")
]
Function = Annotated[
    str,
    matching(r"([A-Za-z_][\w.]*:[A-Za-z_]\w*)?", "write it as package.module:function"),
]
# Modules that register entries. A section that names entries stands below them.
Plugins = tuple[Annotated[str, AfterValidator(load_plugin)], ...]
VariantName = Annotated[str, entry_of(VARIANTS)]
Variants = Annotated[tuple[VariantName, ...], AfterValidator(unique)]
Benchmarks = Annotated[
    tuple[Annotated[str, entry_of(BENCHMARKS)], ...], Field(min_length=1), AfterValidator(unique)
]
Sizes = dict[Annotated[str, AfterValidator(size_name)], Count]
