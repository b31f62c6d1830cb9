"""Save a notebook's figure in one call: file names, column editions and inputs follow from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from napo.errors import unknown
from napo.stages.labels import margin_inputs
from napo.stages.session import Session, numbers
from napo.workspace.folders import run_name
from napo.workspace.manifests import read_settings, sealed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


class Edition(NamedTuple):
    """A figure as it is written: the name of its files, its data, and what they were made from."""

    name: str
    figure: Figure
    data: pd.DataFrame
    inputs: dict[str, Any]


def save(session: Session, figure: Figure, name: str, data: pd.DataFrame) -> str:
    """Write a figure of a notebook as pdf, svg and png, and its data as csv.

    Parameters of the notebook that differ from the profile's become part of the files' names.
    Figs. 3 and 4 are also written for a column.

    Args:
        session: of the notebook, with its parameters.
        figure: the figure.
        name: "fig3", "fig4", "training" or "comparison".
        data: what it was drawn from.

    Returns:
        A line that says where the files are.

    Raises:
        NapoError: for another name.
    """
    from napo.results import figures

    if name not in EDITIONS:
        raise unknown("figure", name, EDITIONS)
    folder, names = session.workspace.figures, []
    for edition in EDITIONS[name](session, figure, data):
        figures.save(edition.figure, folder, edition.name, edition.data, edition.inputs)
        names.append(edition.name)
    return f"{', '.join(names)} (pdf, svg, png, csv) in {folder}"


def fig3(session: Session, figure: Figure, data: pd.DataFrame) -> Iterator[Edition]:
    """Fig. 3 for a page and for a column; other values of q than the paper's are in its name."""
    from napo.results import figures

    qs = session.parameters.get("qs", "")
    name = figures.fig3_name(numbers("qs", qs) if qs else figures.PAPERS_QS)
    yield Edition(name, figure, data, {})
    yield Edition(f"{name}-column", figures.fig3(data, figures.COLUMN), data, {})


def fig4(session: Session, figure: Figure, data: pd.DataFrame) -> Iterator[Edition]:
    """Fig. 4 for a page and for a column, as `fig4` or `fig4-by-NAME`."""
    from napo.results import figures

    annotator = session.parameters.get("annotator", "")
    by, inputs = f"-by-{annotator}" if annotator else "", margin_inputs(session, annotator)
    yield Edition(f"fig4{by}", figure, data, inputs)
    column = figures.fig4(data, width=figures.COLUMN)
    yield Edition(f"fig4-column{by}", column, data, inputs)


def training(session: Session, figure: Figure, data: pd.DataFrame) -> Iterator[Edition]:
    """The training curves of a variant's runs, with the averages that they show."""
    from napo.results import figures

    variant, seeds, tune = (session.parameters.get(key, "") for key in ("variant", "seeds", "tune"))
    tune, runs = session.tune(tune), session.workspace.data / "runs"
    names = [run_name(variant, seed, tune) for seed in session.seeds(seeds)]
    inputs = {
        name: {"files": sealed(runs / name), "settings": read_settings(runs / name)}
        for name in names
    }
    name = session.edition(f"training-{variant}-{tune}", seeds)
    yield Edition(name, figure, figures.per_step(data), inputs)


def comparison(session: Session, figure: Figure, data: pd.DataFrame) -> Iterator[Edition]:
    """LP and CB of all variants."""
    seeds, tune = (session.parameters.get(key, "") for key in ("seeds", "tune"))
    yield Edition(session.edition("comparison", seeds, tune), figure, data, {})


EDITIONS: dict[str, Callable[..., Iterator[Edition]]] = {
    "fig3": fig3,
    "fig4": fig4,
    "training": training,
    "comparison": comparison,
}
