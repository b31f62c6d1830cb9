"""What every notebook does first: check its parameters, open its workspace, set its threads."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from napo.config.profile import Profile, Training, edition, load_profile, seeds
from napo.errors import NapoError, unknown
from napo.stages.ranks import alone, set_threads
from napo.workspace import provenance
from napo.workspace.files import fingerprint
from napo.workspace.folders import Workspace
from napo.workspace.hashing import remember_in

_INJECTED = "# Parameters"  # the first line of the cell that papermill adds
_GIVE = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}


@dataclass(frozen=True)
class Session:
    """A notebook's checked surroundings."""

    profile: Profile
    workspace: Workspace

    def seeds(self, text: str = "") -> list[int]:
        """The seeds of a parameter such as "0,1,2"; empty: the profile's."""
        return seeds(text or self.profile.seeds)

    def tune(self, text: str = "") -> str:
        """What is trained: "full", "lora" or "qlora"; empty: as the profile says.

        Raises:
            NapoError: for another word.
        """
        known = get_args(Training.model_fields["tune"].annotation)
        if text and text not in known:
            raise unknown("tune", text, known)
        return text or self.profile.training.tune

    def edition(self, name: str, seeds: str = "", tune: str = "") -> str:
        """A file's name, for other runs than the profile's their own: `tables-lora-seeds-0`."""
        return edition(self.profile, name, seeds, tune)


def start() -> Session:
    """Check the parameters of the notebook that calls this, and open its profile and workspace.

    The call follows the `parameters` cell. It holds under papermill, Snakemake and by hand: what
    papermill injected is compared with what the notebook declares, names and types.

    Raises:
        NapoError: for a parameter that the notebook does not declare or a value of another type.
    """
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise NapoError(
            "napo.stages.session.start() belongs in a notebook; call napo's modules instead."
        )
    namespace = shell.user_ns
    checked = check_parameters(
        namespace, namespace.get("__annotations__", {}), namespace.get("In", [])
    )
    namespace.update(checked)
    return open_session(**checked)


def open_session(profile: str, workspace: str = "", **parameters: Any) -> Session:
    """The session of a profile (name or YAML path) and a workspace folder, for use in scripts.

    Args:
        profile: its name, or the path of its file.
        workspace: the folder; empty: the checkout.
        parameters: what else was asked for; it is written down beside what is made.
    """
    settings = load_profile(profile)
    alone()
    set_threads(settings.threads)
    for name in type(settings.world).model_fields:
        settings.world.function(name)  # what is no function is said now, not after hours
    provenance.ask(settings.name, fingerprint(settings.model_dump()), parameters)
    place = Workspace.open(workspace, settings.name)
    remember_in(place.hashes)
    return Session(settings, place)


def check_parameters(
    namespace: Mapping[str, Any], declared: Mapping[str, Any], cells: Iterable[str]
) -> dict[str, Any]:
    """The declared parameters with their values, once names and types are known to be right.

    Args:
        namespace: the notebook's variables.
        declared: name -> type, from the `parameters` cell's annotations.
        cells: source of the cells that have run; papermill's own is recognised among them.

    Raises:
        NapoError: naming the stranger and the nearest declared name, or the value.
    """
    for name in _injected_names(cells):
        if name not in declared:
            raise unknown("parameter", name, declared)
    values = {}
    for name, kind in declared.items():
        kind = {each.__name__: each for each in _GIVE}.get(kind, kind)
        # papermill turns `-p seeds 0` into a number: text parameters take numbers as text.
        adapter = TypeAdapter(kind, config=ConfigDict(coerce_numbers_to_str=True))
        try:
            values[name] = adapter.validate_python(namespace[name])
        except ValidationError:
            raise NapoError(
                f"Parameter {name} is {namespace[name]!r}; give {_GIVE[kind]}."
            ) from None
    return values


def _injected_names(cells: Iterable[str]) -> list[str]:
    sources = [source for source in cells if source.lstrip().startswith(_INJECTED)]
    targets = [
        target
        for source in sources
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def numbers(name: str, text: str) -> list[float]:
    """The numbers of a parameter such as "0.1,0.5".

    Raises:
        NapoError: when a piece is no number, naming the parameter.
    """
    try:
        return [float(piece) for piece in text.split(",")]
    except ValueError:
        raise NapoError(
            f"{name} is {text!r}; write numbers with commas between them, such as 0.1,0.5."
        ) from None
