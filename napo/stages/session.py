"""The first call of every notebook: check parameters, open the workspace, set the threads."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from napo.config.profile import Profile, edition, load_profile, seeds
from napo.config.settings import TUNES
from napo.errors import NapoError, unknown
from napo.stages.ranks import alone, set_threads
from napo.workspace import provenance
from napo.workspace.files import fingerprint
from napo.workspace.folders import Workspace
from napo.workspace.hashing import remember_in

INJECTED = "# Parameters"  # the first line of the cell that papermill adds
LISTS = ("seeds", "qs")  # text parameters that hold numbers, and may be given as such
TYPE_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class Session:
    """A profile and the workspace of its data and figures.

    Attributes:
        profile: the profile.
        workspace: its folders.
        parameters: the other parameters of the notebook, such as `seeds`.
    """

    profile: Profile
    workspace: Workspace
    parameters: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def seeds(self, text: str = "") -> list[int]:
        """The seeds of a parameter such as "0,1,2"; empty: the profile's."""
        return seeds(text or self.profile.seeds)

    def tune(self, text: str = "") -> str:
        """ "full", "lora" or "qlora"; empty: the profile's.

        Raises:
            NapoError: for another word.
        """
        if text and text not in TUNES:
            raise unknown("tune", text, TUNES)
        return text or self.profile.training.tune

    def edition(self, name: str, seeds: str = "", tune: str = "") -> str:
        """A file name; other seeds or tune than the profile's are part of it."""
        return edition(self.profile, name, seeds, tune)


def start() -> Session:
    """Check the parameters of the calling notebook, and open its profile and workspace.

    The call follows the `parameters` cell. It compares the parameters that papermill injected with
    those that the notebook declares, by name and type.

    Raises:
        NapoError: for an undeclared parameter, or a value of another type.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise NapoError(
            "napo.stages.session.start() belongs in a notebook; call napo's modules instead."
        )
    namespace = shell.user_ns
    declared, cells = namespace.get("__annotations__", {}), namespace.get("In", [])
    parameters = check_parameters(namespace, declared, cells)
    namespace.update(parameters)
    return open_session(**parameters)


def open_session(
    profile: str, workspace: str = "", *, write: bool = True, **parameters: Any
) -> Session:
    """The session of a profile and a workspace folder, for use in scripts.

    Args:
        profile: its name, or the path of its file.
        workspace: the folder; empty: the checkout.
        write: refuse a read-only workspace.
        parameters: a notebook's other parameters, recorded in the provenance of its results.
    """
    settings = load_profile(profile)
    alone()
    set_threads(settings.threads)
    for name in type(settings.world).model_fields:
        settings.world.function(name)  # a wrong name fails now, not after hours
    provenance.set_session(settings.name, fingerprint(settings.model_dump()), parameters)
    folders = Workspace.open(workspace, settings.name, write=write)
    remember_in(folders.hashes)
    return Session(settings, folders, parameters)


def check_parameters(
    namespace: Mapping[str, Any], declared: Mapping[str, Any], cells: Iterable[str]
) -> dict[str, Any]:
    """The declared parameters (name -> type) with their values in the notebook's namespace.

    `cells` holds the source of the cells that have run; names are checked in papermill's cell.

    Raises:
        NapoError: naming the unknown parameter and the nearest declared one, or the wrong value.
    """
    for source in cells:
        statements = ast.parse(source).body if source.lstrip().startswith(INJECTED) else ()
        for statement in statements:
            for target in getattr(statement, "targets", ()):
                if isinstance(target, ast.Name) and target.id not in declared:
                    raise unknown("parameter", target.id, declared)
                # A value that papermill cannot write as a literal, such as nan, is not compared.
                with suppress(ValueError, AttributeError):
                    given = ast.literal_eval(statement.value)
                    if namespace[target.id] != given:
                        raise NapoError(
                            f"Parameter {target.id} was given as {given!r} and is "
                            f"{namespace[target.id]!r}: this notebook sets it again. Keep all "
                            "parameters in one cell with the tag parameters."
                        )
    types = {kind.__name__: kind for kind in TYPE_WORDS}
    values = {}
    for name, kind in declared.items():
        kind, value = types.get(kind, kind), namespace[name]
        if name in LISTS:
            value = numbers_as_text(value)
        try:
            values[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError:
            # papermill's -p reads 007 as the number 7, and None or Nan as no text at all.
            remedy = f" (on papermill's command line: -r {name} VALUE)" if kind is str else ""
            raise NapoError(
                f"Parameter {name} is {value!r}; give {TYPE_WORDS[kind]}{remedy}."
            ) from None
    return values


def numbers_as_text(value: Any) -> Any:
    """Numbers such as [0, 1] or 0 as the text "0,1"; any other value as it is."""
    items = value if isinstance(value, list | tuple) else [value]
    whole = all(isinstance(item, int | float) and not isinstance(item, bool) for item in items)
    return ",".join(map(str, items)) if items and whole else value


def numbers(name: str, text: str) -> list[float]:
    """The numbers of a parameter such as "0.1,0.5"; NapoError names a wrong one."""
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise NapoError(
            f"{name} is {text!r}; write numbers with commas between them, such as 0.1,0.5."
        ) from None
