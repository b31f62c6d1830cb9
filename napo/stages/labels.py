"""The 100 samples: labelled by truth or by people, adjudicated, and their margins (Fig. 4)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from napo.config.variants import BIASED
from napo.data.rows import row_ids
from napo.errors import NapoError
from napo.noise.agreement import consensus, people, with_consensus
from napo.noise.labels import (
    ADJUDICATED,
    COLUMNS,
    LABELS,
    ORACLE,
    RESERVED,
    labels_file,
    nfc,
    read_labels,
    write_labels,
)
from napo.noise.samples import (
    LabelByTruth,
    oracle_labels,
    response_margins,
    sample,
    sampled_rows,
    without_images,
)
from napo.stages.inputs import biased_rows, current_reference
from napo.stages.session import Session
from napo.stages.settings import of_labels
from napo.workspace import provenance
from napo.workspace.files import finished_files, json_value
from napo.workspace.hashing import content_hash
from napo.workspace.manifests import (
    GONE,
    begin,
    complete,
    differences,
    finish,
    manifest_fingerprint,
    require,
    sealed,
)

if TYPE_CHECKING:
    import datasets
_HOW = "in JupyterLab, in notebooks/02_annotate_noise.ipynb with `interactive` set to True"


def annotate(session: Session, annotator: str = "") -> pd.DataFrame:
    """The labels of the 100 samples, by the scenes' truth ("oracle") or by people.

    Where the truth is known, people's labels get its groups.
    """
    biased_rows(session, reference=False)  # without rows there is nothing to label
    annotator = annotator_of(session, annotator)
    rows, samples, path = to_label(session, annotator)
    truth = _truth(session)
    if annotator == ADJUDICATED:
        place = {id: index for index, id in enumerate(samples)}
        labels = consensus(everyones_labels(session)).sort_values(
            "id", key=lambda ids: ids.map(place), kind="stable", ignore_index=True
        )
    else:
        if annotator == ORACLE:
            by_id = sampled_rows(without_images(rows), samples)
            write_labels(path, oracle_labels(by_id.values(), truth))
        labels = read_labels(path)
    if not complete(path.parent):
        finish(path.parent, keep_open="*.csv")
    if truth is None or labels.empty:
        return labels
    by_id = sampled_rows(without_images(rows), list(labels["id"].unique()))
    items = zip(labels["id"], labels["kind"], strict=True)
    return labels.assign(group=[truth(by_id[id], kind)[1] for id, kind in items])


def annotator_of(session: Session, annotator: str = "") -> str:
    """The annotator by name; without a name here and in the profile, the people who labelled.

    One person's labels are taken as they are; of several people, it is "adjudicated".

    Raises:
        NapoError: when there are no labels of that name yet, naming how to label; when items are
            still disputed.
    """
    profile = session.profile
    annotator = annotator or profile.annotation.annotator
    if annotator == ORACLE:
        if profile.data.source or not profile.world.label_by_truth:
            raise NapoError(
                f"Profile {profile.name} has no truth to label by; label the samples "
                f"{_HOW} and `annotator` to your name, then give that name here."
            )
        return ORACLE
    if not annotator:
        names = sorted(set(people(everyones_labels(session))["annotator"]))
        if not names:
            raise NapoError(
                f"Nobody has labelled the samples yet; label them {_HOW} and `annotator` to your "
                "name, then run this again."
            )
        annotator = names[0] if len(names) == 1 else ADJUDICATED
    if annotator == ADJUDICATED:
        labels = labels_of_several(session)
        disputed = len(people(labels).drop_duplicates(["id", "kind"])) - len(consensus(labels))
        if disputed:
            raise NapoError(
                f"{disputed} {'responses are' if disputed > 1 else 'response is'} still disputed; "
                f'adjudicate {_HOW} and `annotator` to "{ADJUDICATED}".'
            )
        return annotator
    path = labels_file(session.workspace.annotations, annotator)
    if not path.is_file() or read_labels(path).empty:
        raise NapoError(
            f"{annotator} has labelled no sample yet; label them {_HOW} and `annotator` to "
            f'"{annotator}".'
        )
    return annotator


def figures4(session: Session) -> tuple[dict[str, str], list[str]]:
    """The Figs. 4 that can be drawn now, and why others cannot be drawn yet.

    Returns:
        Names of figures, each with its annotator: `fig4` is by the profile's annotator (an empty
        name), `fig4-by-NAME` by each other person. Then a sentence for each annotator whose labels
        are missing or cannot be used.
    """
    figures, problems, own = {}, [], ""
    here = f"{session.workspace.root}{os.sep}"  # a report names no path of the machine

    def note(figure: str, error: NapoError) -> None:
        problems.append(f"{figure}. {error}".replace(here, ""))

    try:
        own = annotator_of(session)
        figures["fig4"] = ""
    except NapoError as error:
        note("Fig. 4: not labelled", error)
    for path in finished_files(session.workspace.annotations, "*.csv"):
        if path.stem in (*RESERVED, own):
            continue
        try:
            labels, ids = labels_of(path), row_ids(session.workspace.rows)
            labels_file(path.parent, path.stem)  # raises for a name that is no annotator's
            strangers = sorted(set(labels["id"]) - ids) if ids else []
            if strangers:
                raise NapoError(
                    f"{path} labels rows that are not here ({', '.join(strangers[:3])}); move it "
                    "out of this folder."
                )
            if not labels.empty:
                figures[f"fig4-by-{path.stem}"] = path.stem
        except NapoError as error:
            note(f"Fig. 4 by {path.stem}: not drawn", error)
    return figures, problems


def labels_to_keep(folder: Path) -> str:
    """A sentence about the labels of people in a folder that is to be deleted; empty if none."""
    names = [path.name for path in finished_files(folder, "*.csv") if path.stem not in RESERVED]
    if not names:
        return ""
    return f" {folder} holds labels by people; move {', '.join(names)} elsewhere to keep them."


def samples(session: Session) -> tuple[datasets.Dataset, list[str]]:
    """The rows with their images, and the ids to label, in the order in which to label them."""
    rows, drawn, _ = to_label(session, ORACLE)
    return rows, drawn


def everyones_labels(session: Session) -> pd.DataFrame:
    """The labels of all annotators, one below the other; an empty frame if nobody labelled."""
    paths = finished_files(session.workspace.annotations, "*.csv")
    frames = [labels_of(path) for path in paths]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def usable_labels(session: Session) -> pd.DataFrame:
    """As `everyones_labels`, without damaged files, which `figures4` names."""
    frames = [pd.DataFrame(columns=list(COLUMNS))]
    for path in finished_files(session.workspace.annotations, "*.csv"):
        with suppress(NapoError):
            frames.append(labels_of(path))
    return pd.concat(frames, ignore_index=True)


def labels_of(path: Path) -> pd.DataFrame:
    """The labels of an annotator's file.

    Raises:
        NapoError: when it is damaged, or holds the labels of somebody else.
    """
    labels = read_labels(path)
    others = sorted(set(labels["annotator"].map(nfc)) - {nfc(path.stem)})
    if others:  # a copy, whose labels would count twice
        raise NapoError(
            f"{path} holds labels of {', '.join(others)}; keep the labels of each annotator in "
            "a file of that name, and move copies out of this folder."
        )
    return labels


def labels_of_several(session: Session) -> pd.DataFrame:
    """The labels of all annotators; an error unless at least two people labelled."""
    labels = everyones_labels(session)
    names = sorted(set(people(labels)["annotator"]))
    if len(names) < 2:
        who = f"only {names[0]} has" if names else "nobody has"
        raise NapoError(
            f"Adjudication needs the labels of two people, and {who} labelled; label the samples "
            f"{_HOW} and `annotator` to each person's name."
        )
    return labels


def labelled(session: Session) -> pd.DataFrame:
    """How many of the sampled responses each annotator labelled; "adjudicated": the consensus.

    Returns:
        Index `annotator`; columns `labelled`, `of`, and how many of them are `biased`, `unbiased`
        and `unsure`.
    """
    labels = with_consensus(usable_labels(session))
    counts = pd.crosstab(labels["annotator"], labels["label"]).reindex(
        columns=list(LABELS), fill_value=0
    )
    counts.insert(0, "labelled", counts.sum(axis=1))
    counts.insert(1, "of", session.profile.annotation.samples * len(BIASED))
    return counts.rename_axis(columns=None)


def to_label(session: Session, annotator: str) -> tuple[datasets.Dataset, list[str], Path]:
    """The rows, the ids of the samples, and the CSV of an annotator; claims the folder."""
    folder, settings = session.workspace.annotations, session.profile.annotation
    path = labels_file(folder, annotator)
    rows = biased_rows(session, reference=False)
    manifest = require(session.workspace.rows)
    drawn = sample(rows, settings.samples, settings.seed)  # before the folder is claimed
    made_from = manifest_fingerprint(manifest), manifest["settings"]
    try:
        begin(folder, of_labels(session.profile, *made_from))
    except NapoError as error:
        raise NapoError(f"{error}{labels_to_keep(folder)}") from None
    return rows, drawn, path


def margins(session: Session, annotator: str = "") -> pd.DataFrame:
    """Fig. 4's data: each labelled response's log-prob margins under the reference."""
    return response_margins(biased_rows(session), annotate(session, annotator))


def margin_inputs(session: Session, annotator: str = "") -> dict[str, Any]:
    """The samples, and fingerprints of rows, reference and labels, that a Fig. 4 is drawn from."""
    workspace, name = session.workspace, annotator_of(session, annotator)
    folder, label_files = workspace.annotations, [labels_file(workspace.annotations, name)]
    if name == ADJUDICATED:
        label_files = finished_files(folder, "*.csv")
    complete_labels = all(path.is_file() for path in label_files)
    try:
        reference = current_reference(workspace)
    except NapoError:  # deleted to save space
        reference = GONE
    return {
        "annotator": name,
        **session.profile.annotation.model_dump(include={"samples", "seed"}),
        "truth": session.profile.world.label_by_truth,  # groups of rows, and the oracle's labels
        "rows": sealed(workspace.rows),
        "reference": reference,
        "labels": content_hash(label_files, folder) if complete_labels else GONE,
    }


def outdated_figure(session: Session, name: str, annotator: str) -> bool:
    """Whether a Fig. 4 lacks a file, or is not that of these rows and labels."""
    folder = session.workspace.figures
    now = json_value(margin_inputs(session, annotator))
    for each in (name, name.replace("fig4", "fig4-column", 1)):
        record = provenance.figure_record(folder / f"{each}.{provenance.FILE}")
        inputs = record.get("inputs")
        if not inputs or not all((folder / file).is_file() for file in record["files"]):
            return True
        if differences(inputs, now):
            return True
    return False


def all_margins(session: Session) -> pd.DataFrame | None:
    """The margins of every row, labelled by truth; None where no truth is known."""
    truth = _truth(session)
    if truth is None:
        return None
    rows = biased_rows(session)
    return response_margins(rows, oracle_labels(rows, truth))


def _truth(session: Session) -> LabelByTruth | None:
    """The profile's label by truth; only rows that the world made have one."""
    profile = session.profile
    return None if profile.data.source else profile.world.function("label_by_truth")
