"""Disk and memory of a profile against machines that the tests make up."""

import re
import shutil
from collections import namedtuple

import pytest

from napo.commands import budget
from napo.commands.check_inputs import Inputs
from napo.commands.check_machine import Machine
from napo.commands.check_needs import Needs, existing, gb
from napo.config.runs import trained
from napo.config.settings import Training
from napo.stages.session import Session, open_session
from napo.workspace.files import write_json

TRUE = pytest.mark.kind("napo check says what is true, all at once")
PAPER = "llava-1.5-7b"
MAIN_MEMORY = 1e12


def machine(gpus, size):
    return Machine(((size * 1e9, size * 1e9),) * gpus, MAIN_MEMORY)


def needs(tmp_path, gpus=8, size=80, profile=PAPER, **training):
    session = open_session(profile, str(tmp_path))
    changed = Training(**session.profile.training.model_dump() | training)
    settings = session.profile.model_copy(update={"training": changed})
    return Needs(Inputs(Session(settings, session.workspace)), machine(gpus, size))


def about(remarks, stage):
    (remark,) = (remark for remark in remarks if remark[1].startswith(stage))
    return remark


@TRUE
@pytest.mark.parametrize(
    ("gpus", "size", "state"),
    [(8, 24, "fault"), (8, 40, "ok"), (8, 80, "ok"), (1, 80, "fault"), (4, 40, "fault")],
)
def test_full_tuning_of_7b_fits_where_the_budget_says_so(tmp_path, gpus, size, state, result):
    found, text = about(needs(tmp_path, gpus, size).memory(), "training")
    strategy = "zero2" if gpus > 1 else "ddp"
    row = budget.table(PAPER, gpus, size).loc["full", strategy]
    assert (found == "ok") == row.fits and found == state
    assert f"needs {gb((row.total + 2) * 1e9)} on each GPU" in text
    result(text)


@TRUE
def test_what_would_fit_is_named_and_does_fit(tmp_path):
    small = needs(tmp_path, 8, 24)
    text = about(small.memory(), "training")[1]
    for settings in re.search("what fits: ([^.]*)", text)[1].split("; "):
        pairs = (part.rpartition(" ") for part in settings.split(" with "))
        changes = {key: int(value) if value.isdigit() else value for key, _, value in pairs}
        assert small.run(**changes).peak()["total"] + 2e9 <= 24e9


def test_lora_fits_one_gpu_of_40_gb_and_not_one_of_16(tmp_path):
    states = [
        about(needs(tmp_path, 1, size, tune="lora").memory(), "training")[0] for size in (40, 16)
    ]
    assert states == ["ok", "fault"]


@TRUE
@pytest.mark.parametrize("stage", ["building", "evaluating"])
def test_a_batch_that_is_too_large_is_a_note_with_the_batch_that_fits(tmp_path, stage):
    found, text = about(needs(tmp_path, 8, 24).memory(), stage)
    batch = int(re.search(r"batch_size to (\d+)", text)[1])
    assert found == "note" and 1 <= batch < 32
    assert about(needs(tmp_path, 8, 80).memory(), stage)[0] == "ok"


def test_a_model_that_does_not_fit_at_all_is_a_fault_of_every_stage(tmp_path):
    remarks = list(needs(tmp_path, 8, 12).memory())  # 7 billion parameters of 2 bytes
    stages = ("building", "scoring", "training", "evaluating")
    assert [about(remarks, stage)[0] for stage in stages] == ["fault"] * 4


@TRUE
def test_a_machine_without_gpus_says_how_long_the_paper_would_take(tmp_path, result):
    note = about(needs(tmp_path, 0).memory(), "without a GPU")
    days = int(re.search(r"about (\d+) days", note[1])[1])
    hours = budget.table(PAPER, 1, utilisation=1, tflops=1).hours["full", "ddp"]
    assert note[0] == "note" and days == pytest.approx(hours / 24, abs=1)
    result(note[1])


@TRUE
def test_the_tiny_scale_is_compared_with_the_machines_own_memory(tmp_path):
    session = open_session("tiny", str(tmp_path))
    states = {}
    for free in (0.5e9, 8e9):
        states[free] = {state for state, _ in Needs(Inputs(session), Machine((), free)).memory()}
    assert states[8e9] == {"ok"} and "fault" in states[0.5e9]


def disk(tmp_path, monkeypatch, free, **training):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free, 0, free))
    return next(needs(tmp_path, **training).disk())


@TRUE
def test_disk_counts_every_run_and_both_checkpoints(tmp_path, monkeypatch, result):
    state, text = disk(tmp_path, monkeypatch, 69e9)
    row = budget.table(PAPER, 8).loc["full", "zero2"]
    runs = sum(map(trained, open_session(PAPER, str(tmp_path)).profile.variants))
    total = float(re.match(r"([\d,]+) GB", text)[1].replace(",", ""))
    assert state == "fault" and f"weights and records of {runs} runs" in text
    assert total > runs * row.weights + row.disk
    assert total < runs * row.weights + row.disk + 100  # downloads, rows, their copy, the model
    assert disk(tmp_path, monkeypatch, 1e13)[0] == "ok"
    assert disk(tmp_path, monkeypatch, 150e9, tune="lora")[0] == "ok"  # adapters are small
    result(text)


def test_finished_runs_need_no_more_disk(tmp_path, monkeypatch):
    workspace = open_session(PAPER, str(tmp_path)).workspace
    write_json(workspace.run("A1", 0, "full") / "manifest.json", {})
    before, after = 12, 11
    assert f"weights and records of {after} runs" in disk(tmp_path, monkeypatch, 1e13)[1]
    assert f"of {before} runs" in disk(tmp_path, monkeypatch, 1e13, tune="lora")[1]


def test_a_folder_that_is_not_there_counts_on_the_disk_of_its_parent(tmp_path):
    assert existing(tmp_path / "a" / "b") == tmp_path


@pytest.mark.parametrize(
    ("size", "text"), [(5.6e6, "6 MB"), (1.23e9, "1.2 GB"), (4.4e10, "44 GB"), (2e12, "2,000 GB")]
)
def test_sizes_are_read_easily(size, text):
    assert gb(size) == text
