"""Profiles: all settings of one scale, from a YAML file.

A profile is one file under `napo/config/profiles/`, or one named by path. Unknown keys
are errors that list the known ones; what a profile leaves out has the default of its section
(`napo.config.settings`).
"""

from __future__ import annotations

import os
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from napo.config import strict_yaml
from napo.config.settings import (
    Annotation,
    Data,
    Decoding,
    Evaluation,
    Launch,
    Masks,
    Model,
    Plugins,
    Run,
    Settings,
    Source,
    Training,
    VariantName,
    Word,
    World,
)
from napo.config.variants import VARIANTS
from napo.errors import NapoError, unknown
from napo.workspace.files import fingerprint

__all__ = [
    "PROFILES", "Annotation", "Data", "Decoding", "Evaluation", "Launch", "Masks", "Model",
    "Profile", "Run", "Settings", "Source", "Training", "World", "known_profiles", "load_profile",
    "load_run", "seeds",
]  # fmt: skip

PROFILES = Path(__file__).parent / "profiles"
# Folders beside those of the profiles, in data/ or figures/.
TAKEN = {
    "paper": "the published numbers",
    "downloads": "what profiles download",
    "bench": "what was measured of speed",
    "readme": "the README's figures",
}
SEEDS_NAMED = 8  # in a file's name, which may have 255 characters
_VALUES = reprlib.Repr()  # a wrong value is shown in a sentence: its beginning and end are enough
_VALUES.maxlevel, _VALUES.maxstring, _VALUES.maxother = 2, 100, 100


class Profile(Settings):
    """One scale of the reproduction."""

    name: Annotated[Word, Field(max_length=100)]  # the file's, if it says nothing
    extends: str = ""  # the profile whose values hold where this one says nothing
    title: str = ""
    plugins: Plugins = ()  # modules that register losses, variants, benchmarks or families
    world: World = World()
    model: Model = Model()
    data: Data = Data()
    masks: Masks = Masks()
    annotation: Annotation = Annotation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    launch: Launch = Launch()
    sources: tuple[Source, ...] = ()
    variants: tuple[VariantName, ...] = tuple(v.name for v in VARIANTS.values() if v.tables)
    baselines: tuple[VariantName, ...] = tuple(  # trained by `make baselines`
        v.name for v in VARIANTS.values() if v.baseline
    )
    seeds: str = "0,1,2"
    threads: int = Field(default=1, gt=0, le=1024)  # part of "the same bytes"
    scale: Literal["tiny", "paper"] = "paper"  # decides what the tables' differences are against
    paper_model: Literal["7B", "13B"] = "7B"  # whose published rows ours stand beside

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if holds := TAKEN.get(value.casefold()):
            raise ValueError(f"the folder {value} holds {holds}; choose another name")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds(cls, value: Any) -> Any:
        """A number or a list of numbers is taken for what it is meant to be."""
        if isinstance(value, list) and value and all(type(one) is int for one in value):
            value = ",".join(map(str, value))
        if type(value) is int:
            value = str(value)
        if isinstance(value, str):
            try:
                seeds(value)
            except NapoError as error:
                raise ValueError(str(error).rstrip(".")) from None
        return value

    @field_validator("variants", "baselines")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name in value if value.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is there twice; name each once")
        return value


def seeds(text: str) -> list[int]:
    """The seeds of a parameter such as "0,1,2".

    Raises:
        NapoError: when a piece is not a whole number, or one is named twice.
    """
    try:
        values = [int(piece) for piece in str(text).split(",")]
    except ValueError:
        raise NapoError(
            f"seeds is {_VALUES.repr(text)}; "
            "write whole numbers with commas between them, such as 0,1,2."
        ) from None
    if min(values) < 0 or max(values) >= 2**32:
        raise NapoError(f"seeds is {_VALUES.repr(text)}; a seed is 0 or larger, and below 2^32.")
    if len(set(values)) < len(values):
        raise NapoError(
            f"seeds is {_VALUES.repr(text)}, which names a seed twice; name each seed once."
        )
    return values


def edition(profile: Profile, name: str, asked: str = "", tune: str = "") -> str:
    """A file's name, for other runs than the profile's their own: `tables-lora-seeds-0`.

    A hash stands for many seeds, whose list no file system takes as a name.

    Args:
        profile: the profile.
        name: the name for its own runs.
        asked: seeds such as "0,1,2"; empty: the profile's.
        tune: what is trained; empty: as the profile says.
    """
    if tune not in ("", profile.training.tune):
        name += f"-{tune}"
    if asked and seeds(asked) != seeds(profile.seeds):
        values = seeds(asked)
        many = len(values) > SEEDS_NAMED
        name += f"-seeds-{fingerprint(values) if many else '-'.join(map(str, values))}"
    return name


def known_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Read a profile by name, or by the path of a YAML file.

    Raises:
        NapoError: for an unknown profile or key, a value out of its range, or a callable that is
            not there, naming file and key.
    """
    path, content = _read(name, {})
    try:
        profile = Profile(**{"name": path.stem, **content})
        profile.world.check()
    except ValidationError as error:
        raise _sentence(path.name, error, Profile) from None
    except NapoError as error:
        raise NapoError(f"{path.name}: {error}") from None
    return profile


def load_run(path: Path) -> Run:
    """Read the settings of one training run.

    Raises:
        NapoError: for an unknown or missing key, or a value out of its range, naming file and key.
    """
    try:
        return Run(**_content(path))
    except ValidationError as error:
        raise _sentence(path.name, error, Run) from None


def _read(name: str, children: Mapping[Path, str]) -> tuple[Path, dict[str, Any]]:
    """A profile's file and its values, on top of those of the profile that it extends.

    Args:
        name: as it was given.
        children: the files that extend it, and how each was named.
    """
    path = _file_of(name)
    file = path.resolve()  # `sub/../mine.yaml` is mine.yaml again
    if file in children:
        names = " -> ".join((*children.values(), name))
        raise NapoError(f"{path.name} extends itself ({names}); name another profile there.")
    content = _content(path)
    parent = content.get("extends")
    if not parent:
        return path, content
    parent = str(parent)
    if parent.endswith((".yaml", ".yml")):
        parent = str(path.parent / parent)  # beside the profile that names it
    below = _read(parent, {**children, file: name})[1]
    below.pop("name", None)
    return path, _over(below, content)


def _content(path: Path) -> dict[str, Any]:
    """A file's values. Plugins may stand beside it, for this process and those that it starts."""
    content = strict_yaml.read(path)
    if content.get("plugins") or content.get("world"):
        folder = str(path.resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        known = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
        if folder not in known:
            os.environ["PYTHONPATH"] = os.pathsep.join((*known, folder))
    return content


def _file_of(name: str) -> Path:
    """The file of a profile's name or path."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    try:
        there = path.is_file()
    except (OSError, ValueError):  # no name for a file, or a folder that may not be read
        there = False
    if there:
        return path
    name = name if len(name) <= 100 else f"{name[:100]} ..."
    if path.parent != PROFILES:
        raise NapoError(f"{name!r} is no file; give the path of a YAML file, or a profile's name.")
    raise unknown("profile", name, known_profiles())


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values of one profile on top of another's, section by section."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _over(merged[key], value) if both else value
    return merged


def _sentence(file: str, error: ValidationError, root: type[Settings]) -> NapoError:
    """The first complaint of pydantic as one sentence that names file and key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        where = ".".join(str(part) for part in first["loc"][:-1])
        what = f"key of {where} in {file}:" if where else f"key in {file}:"
        known = _section(root, first["loc"][:-1]).model_fields
        return unknown(what, first["loc"][-1], known)
    if first["type"] == "value_error":
        where = f"{key}: " if key else ""
        return NapoError(f"{file}: {where}{first['ctx']['error']}.")
    if first["type"] == "missing":
        return NapoError(f"{file}: {key} is missing; give it.")
    if first["type"] in ("model_type", "model_attributes_type"):
        return NapoError(
            f"{file}: {key} is {_VALUES.repr(first['input'])}; it is a section of keys and values."
        )
    hint = ""
    if first["type"] == "string_type":
        hint = ", so put it in quotes" if isinstance(first["input"], (int, float)) else ""
    message = first["msg"][0].lower() + first["msg"][1:]
    return NapoError(f"{file}: {key} is {_VALUES.repr(first['input'])}; {message}{hint}.")


def _section(root: type[Settings], where: tuple[int | str, ...]) -> Any:
    """The settings that a place in a file belongs to: a section, or an entry of `sources`."""
    section: Any = root
    for part in where:
        if isinstance(part, str):
            section = section.model_fields[part].annotation
            section = next(iter(get_args(section)), section)
    return section
