"""Profiles: all settings of one scale, from a YAML file.

A profile is a file in `napo/config/profiles/`, or any file named by its path. An unknown key is an
error that lists the known keys. A key that is left out has the default of its section
(`napo.config.settings`).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from napo.config import strict_yaml
from napo.config.settings import (
    Annotation,
    Data,
    Decoding,
    Evaluation,
    Launch,
    Masks,
    Model,
    Run,
    Settings,
    Source,
    Training,
    World,
)
from napo.config.study import Budget, Study
from napo.config.values import SHOWN, Count, FileName, Plugins, Seeds, Variants, seeds
from napo.config.variants import VARIANTS
from napo.errors import NapoError, unknown
from napo.workspace.files import fingerprint

__all__ = [
    "PROFILES", "Annotation", "Budget", "Data", "Decoding", "Evaluation", "Launch", "Masks",
    "Model", "Profile", "Run", "Settings", "Source", "Study", "Training", "World",
    "known_profiles", "load_profile", "load_run", "seeds", "study_edition",
]  # fmt: skip

PROFILES = Path(__file__).parent / "profiles"
# Folders in data/ and figures/ that no profile may have.
TAKEN = {
    "paper": "the published numbers",
    "downloads": "downloads",
    "bench": "measured speeds",
    "readme": "the README's figures",
}
SEEDS_NAMED = 8  # in a file's name, which may have 255 characters

Kind = TypeVar("Kind", bound=Settings)


class Profile(Settings):
    """One scale of the reproduction."""

    name: FileName  # by default the file's
    extends: str = ""  # the profile that gives the values which this one leaves out
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
    study: Study = Study()
    sources: tuple[Source, ...] = ()
    variants: Variants = tuple(  # in the order of the tables
        v.name for v in sorted(VARIANTS.values(), key=lambda v: v.tables[:1]) if v.tables
    )
    baselines: Variants = tuple(  # trained by `make baselines`
        v.name for v in VARIANTS.values() if v.baseline
    )
    seeds: Seeds = "0,1,2"
    threads: Annotated[Count, Field(le=1024)] = 1  # part of "the same bytes"
    scale: Literal["tiny", "paper"] = "paper"  # decides which differences the tables show
    paper_model: Literal["7B", "13B"] = "7B"  # the paper's model to compare with

    _file: str = PrivateAttr("")  # empty for a profile of `PROFILES`

    @property
    def argument(self) -> str:
        """The profile as commands name it: its name, or the path of its file."""
        return self._file or self.name

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if holds := TAKEN.get(value.casefold()):
            raise ValueError(f"the folder {value} holds {holds}; choose another name")
        return value

    @model_validator(mode="after")
    def _decodable(self) -> Profile:
        contrasts = [VARIANTS[name].contrast for name in (*self.variants, *self.baselines)]
        for contrast in filter(None, contrasts):
            self.evaluation.contrasted(contrast)  # refuses beams now, not after training
        return self


def edition(profile: Profile, name: str, seed_text: str = "", tune: str = "") -> str:
    """The name of a file; seeds or `tune` that differ from the profile's become part of it.

    For example `tables-lora-seeds-0`. A hash replaces a list of many seeds, which would be too
    long for a file's name.

    Args:
        profile: the profile.
        name: the name for the profile's own runs.
        seed_text: seeds such as "0,1,2"; empty: the profile's.
        tune: what is trained; empty: the profile's.
    """
    if tune not in ("", profile.training.tune):
        name += f"-{tune}"
    values = seeds(seed_text or profile.seeds)
    if values != seeds(profile.seeds):
        many = len(values) > SEEDS_NAMED
        name += f"-seeds-{fingerprint(values) if many else '-'.join(map(str, values))}"
    return name


def study_edition(profile: Profile, name: str, grid: str = "", seed_text: str = "") -> str:
    """The name of a file of the noise study; another grid or seeds than its own are part of it."""
    if grid not in ("", profile.study.grid):
        name += f"-{grid}"
    return edition(profile.model_copy(update={"seeds": profile.study.seeds}), name, seed_text)


def known_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Read a profile by name, or by the path of a YAML file.

    Raises:
        NapoError: for an unknown profile or key, or a value out of its range, naming file and key.
    """
    path, content = _read(name, {})
    profile = _validated(Profile, path.name, {"name": path.stem, **content})
    profile._file = str(path) if path.parent != PROFILES else ""
    profile.model._profile = profile.argument
    return profile


def load_run(path: Path) -> Run:
    """Read the settings of one training run.

    Raises:
        NapoError: for an unknown or missing key, or a value out of its range, naming file and key.
    """
    return _validated(Run, path.name, _content(path))


def _read(name: str, children: Mapping[Path, str]) -> tuple[Path, dict[str, Any]]:
    """A profile's file, and its values on top of those of the profile that it extends.

    Args:
        name: a name or a path.
        children: the files that extend this one, with the names that lead to them.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    try:
        exists = path.is_file()
    except (OSError, ValueError):  # no file can have this name, or its folder is not readable
        exists = False
    if not exists:
        name = name if len(name) <= 100 else f"{name[:100]} ..."
        if path.parent == PROFILES:
            raise unknown("profile", name, known_profiles())
        raise NapoError(f"{name!r} is no file; give the path of a YAML file, or a profile's name.")
    file = path.resolve()  # `sub/../mine.yaml` is the same file as mine.yaml
    if file in children:
        names = " -> ".join((*children.values(), name))
        raise NapoError(f"{path.name} extends itself ({names}); name another profile there.")
    content = _content(path)
    if not content.get("extends"):
        return path, content
    parent = str(content["extends"])
    if parent.endswith((".yaml", ".yml")):
        parent = str(path.parent / parent)
    inherited = _read(parent, {**children, file: name})[1]
    inherited.pop("name", None)
    return path, _merged(inherited, content)


def _content(path: Path) -> dict[str, Any]:
    """A file's values. Modules beside it can be imported, in processes started later too."""
    content = strict_yaml.read(path)
    if content.get("plugins") or content.get("world"):
        folder = str(path.resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        folders = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
        if folder not in folders:
            os.environ["PYTHONPATH"] = os.pathsep.join((*folders, folder))
    return content


def _merged(inherited: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a profile on top of inherited ones; sections are merged, lists replaced."""
    values = dict(inherited)
    for key, value in own.items():
        sections = isinstance(value, dict) and isinstance(values.get(key), dict)
        values[key] = _merged(values[key], value) if sections else value
    return values


# What to write instead, by pydantic's type of the mistake; for others pydantic's own words.
REMEDIES = {
    "int_type": "write a whole number",
    "float_type": "write a number",
    "bool_parsing": "write true or false",
    "bool_type": "write true or false",
    "string_type": "write a text, in quotes if it looks like a number",
    "tuple_type": "write a list",
    "dict_type": "write keys and values",
    "model_type": "write keys and values, it is a section",
    "model_attributes_type": "write keys and values, it is a section",
    "too_short": "name at least one",
}


def _validated(kind: type[Kind], file: str, content: Mapping[str, Any]) -> Kind:
    """The settings of a file, or its first mistake as one sentence.

    Raises:
        NapoError: naming file and key.
    """
    try:
        return kind(**content)
    except NapoError as error:
        raise NapoError(f"{file}: {error}") from None
    except ValidationError as error:
        raise _explained(error, file, kind) from None


def _explained(error: ValidationError, file: str, kind: type[Settings]) -> NapoError:
    """The first mistake that pydantic found, as one sentence that names file and key."""
    first = error.errors()[0]
    place, value = list(first["loc"]), SHOWN.repr(first["input"])
    if place and place[-1] == "[key]":  # the key of a mapping is wrong
        del place[-2:]
    while place and isinstance(place[-1], int):  # `variants.3` reads as `variants`
        place.pop()
    key = ".".join(map(str, place))
    message = re.sub(r"^\w+ should (be|have)", r"it must \1", first["msg"], flags=re.I)
    message = REMEDIES.get(first["type"], message)
    match first["type"]:
        case "extra_forbidden":
            section: Any = kind
            for part in (part for part in place[:-1] if isinstance(part, str)):
                section = section.model_fields[part].annotation
                section = next(iter(get_args(section)), section)  # an entry of `sources`
            parent = f" of {key.rpartition('.')[0]}" if len(place) > 1 else ""
            return unknown(f"key{parent} in {file}:", place[-1], section.model_fields)
        case "missing":
            return NapoError(f"{file}: {key} is missing; give it.")
        case "value_error":
            return NapoError(f"{file}: {key}{': ' * bool(key)}{first['ctx']['error']}.")
        case "tuple_type" if isinstance(first["input"], str):
            message += f", such as [{first['input']}]"
    return NapoError(f"{file}: {key} is {value}; {message}.")
