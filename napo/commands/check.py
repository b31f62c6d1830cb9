"""`napo check`: what is missing or wrong before the first GPU hour of a profile is spent.

The check reads everything that the stages will read (`check_inputs`), and compares what they need
with the machine (`check_machine`). It generates and sends nothing, and goes on after any fault.
Without a fault it writes `data/<profile>/check.json`, which opens the pipeline for downloaded data
as long as the profile and the files are those that were checked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from napo import stages
from napo.commands import check_machine, check_needs
from napo.commands.check_inputs import Inputs, Remark, sentence
from napo.commands.check_machine import Machine
from napo.commands.check_needs import Needs
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint
from napo.stages import plan
from napo.stages.session import Session
from napo.workspace.files import fingerprint, read_json, write_json
from napo.workspace.hashing import content_hash


class Finding(NamedTuple):
    """A finding of the check about one part of a profile, such as "rows".

    `state` is "ok", "note" (worth knowing) or "fault" (the run fails or its results differ).
    """

    state: str
    text: str
    part: str = ""


def report(session: Session, quick: bool = False) -> None:
    """Check a profile and print the findings; without a fault a full check writes check.json.

    Raises:
        NapoError: when there are faults; an earlier check.json is then deleted.
    """
    path = session.workspace.data / "check.json"
    checked = None if quick else identity(session)
    findings = check(session, quick)
    for state, text, part in findings:
        print(f"{state:<5}  {part:<15}  {text}")
    faults = sum(finding.state == "fault" for finding in findings)
    if faults:
        if os.access(path, os.W_OK):
            path.unlink()
        count = f"{faults} fault{'s' * (faults != 1)}"
        raise NapoError(f"{count}; correct them before anything is run.")
    if not quick:
        content = {"findings": [finding._asdict() for finding in findings], "checked": checked}
        write_json(path, content)


def passed(session: Session) -> bool:
    """Whether a full check found no fault, and neither profile nor files have changed since."""
    try:
        content = read_json(session.workspace.data / "check.json", dict[str, Any])
    except NapoError:  # missing or damaged
        return False
    checked = content.get("checked")
    return checked is not None and checked == identity(session)


def identity(session: Session) -> dict[str, str] | None:
    """A hash of the profile, of its model and of each folder of data; None without a model."""
    profile = session.profile
    try:
        hashes = {"model": model_fingerprint(profile.model.location)}
        folders = {
            "rows": stages.source_folder(session),
            "benchmarks": stages.benchmarks_folder(session),
        }
        for name, folder in folders.items():
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            hashes[name] = content_hash(files, folder)
    except (NapoError, OSError):  # the check reports it
        return None
    return {"profile": fingerprint(profile.model_dump(mode="json")), **hashes}


def check(session: Session, quick: bool = False, machine: Machine | None = None) -> list[Finding]:
    """Check everything that a profile needs.

    Args:
        session: the profile and its workspace.
        quick: decode only every hundredth image.
        machine: the memory to compare with; by default this machine's.
    """
    findings: list[Finding] = []

    def collect(part: str, remarks: Iterable[Remark], place: object = "") -> None:
        try:
            for state, text in remarks:  # one by one: remarks before an error are kept
                findings.append(Finding(state, text, part))
        except Exception as error:  # whatever a library raises: the other parts go on
            text = sentence(error, place or part)
            if all(finding.text != text for finding in findings):  # once, if several parts fail
                findings.append(Finding("fault", text, part))

    inputs, places = Inputs(session, quick), (Path(), Path())
    with suppress(NapoError):  # an unknown home folder, which rows and benchmarks report
        places = stages.source_folder(session), stages.benchmarks_folder(session)
    collect("workspace", workspace(session))
    collect("model", inputs.model(), session.profile.model.path)
    collect("downloads", inputs.downloads())
    collect("rows", inputs.rows(), places[0])
    for name in session.profile.evaluation.benchmarks:
        collect(name, inputs.benchmark(name), places[1] / name)
    collect("labels", inputs.labels(), session.workspace.annotations)
    collect("adapter", inputs.adapter())
    collect("finished", finished(session))
    try:
        machine = machine or Machine.here()
    except Exception as error:  # GPUs that do not answer: everything else is checked
        findings.append(Finding("fault", sentence(error, "the machine"), "machine"))
    gpus = len(machine.gpus) if machine else 0
    collect("tools", check_machine.tools(session, gpus))
    collect("keys", check_machine.keys(session))
    if machine:
        collect("machine", check_machine.processes(session, gpus))
    try:
        needs = Needs(inputs, machine or Machine((), 0))
    except Exception as error:  # no model and no architecture, or a damaged config.json
        text = f"what disk and memory have to hold is not known: {sentence(error, 'the model')}"
        findings.append(Finding("note", text, "disk, memory"))
        return findings
    collect("disk", needs.disk())
    if machine:
        collect("memory", needs.memory())
    return findings


def finished(session: Session) -> Iterable[Remark]:
    """Folders that were made with other settings, which `napo reproduce` would refuse."""
    for folder, words in plan.refusals(session, plan.runs_of(session, session.profile.variants)):
        yield "fault", f"{folder} was made with other settings ({words})."


def workspace(session: Session) -> Iterable[Remark]:
    """Whether the workspace can be written."""
    root = check_needs.existing(session.workspace.root)
    if not os.access(root, os.W_OK):
        yield "fault", f"{root} is read-only; name another workspace."
