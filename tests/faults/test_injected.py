"""Injected faults: each gives one error message, and finished work is kept."""

import os
import shutil
import signal
import subprocess

import pytest

from faults.harness import content, differences, records

pytestmark = pytest.mark.long
DATA = "data/smallest"


def resumes(small, stage, root, kept=frozenset()):
    """Without the fault, the stage keeps its records and ends as an uninterrupted run."""
    assert small.attempt(stage, root) == ""
    assert not kept - records(root)
    assert differences(content(root), small.after[stage]) == []


# --- the disk

LIMITS = {  # bytes of a file: settings and manifests fit, the stage's own files do not
    "build": (8_000, "part-00000.parquet"),
    "reference": (3_000, "part-00000.parquet"),
    "train full": (1_000_000, "checkpoint-2"),
    "train lora": (20_000, "checkpoint-2"),
    "evaluate": (4_000, "vlind.answers.jsonl"),
}


@pytest.mark.parametrize("stage", LIMITS)
def test_a_file_larger_than_the_limit_is_named_and_the_stage_resumes(small, stage):
    largest, name = LIMITS[stage]
    root = small.copy(stage, "limited")
    message = small.attempt(stage, root, largest=largest)
    assert message.startswith("napo: ") and "cannot be written: " in message, message
    assert name in message and "run it again" in message
    resumes(small, stage, root, kept=records(root))


def test_a_refused_label_leaves_no_half_label(small):
    root = small.copy("label", "limited")
    small.attempt("label", root, largest=500)
    assert (root / DATA / "annotations" / "kim.csv").stat().st_size <= 500
    resumes(small, "label", root, kept=records(root))


@pytest.fixture
def little_disk(tmp_path):
    """A file system of 160 KiB, if this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"no right to mount a file system: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place, option):
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True)


def test_a_full_disk_is_named_and_with_more_room_the_stage_resumes(small, little_disk):
    root = small.copy("train full", "full-disk")
    runs = root / DATA / "runs"
    runs.symlink_to(little_disk, target_is_directory=True)
    message = small.attempt("train full", root)
    assert "cannot be written: the disk is full" in message and "checkpoint-2" in message
    remount(little_disk, "size=100m")
    assert small.attempt("train full", root) == ""
    place = f"{DATA}/runs/"
    files = {place + name: digest for name, digest in content(little_disk).items()}
    expected = {n: d for n, d in small.after["train full"].items() if n.startswith(place)}
    assert differences(files, expected) == []


def test_a_read_only_disk_is_named(small, little_disk):
    root = small.copy("train full", "read-only")
    (root / DATA / "runs").symlink_to(little_disk, target_is_directory=True)
    remount(little_disk, "ro")
    message = small.attempt("train full", root)
    assert "cannot be written: you may not write there" in message and "\n" not in message


@pytest.mark.parametrize(
    ("stage", "folder"), [("build", "rows"), ("train full", "runs"), ("evaluate", "results")]
)
def test_a_file_in_the_place_of_a_folder_is_named(small, stage, folder):
    root = small.copy(stage, "in-the-way")
    (root / DATA / folder).write_text("mine")
    message = small.attempt(stage, root)
    assert str(root / DATA / folder) in message and "something is where a folder belongs" in message
    assert (root / DATA / folder).read_text() == "mine"
    (root / DATA / folder).unlink()
    resumes(small, stage, root)


# --- inputs that change or go away


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


INPUTS = {
    "rows in the source": ("build", "source/shard-00000.parquet"),
    "rows": ("train full", "rows/part-00001.parquet"),
    "the reference's log-probs": ("train full", "reference/*/part-00001.parquet"),
    "an image of a benchmark": ("evaluate", "benchmarks/amber/**/*.jpg"),
    "weights": ("evaluate", "runs/A1/seed-0/model/model.safetensors"),
    "an adapter": ("judge", "runs/A1-lora/seed-0/adapter/adapter_model.safetensors"),
}


@pytest.mark.parametrize("harm", [cut, flip, os.unlink], ids=["cut", "one bit", "gone"])
@pytest.mark.parametrize("case", INPUTS)
def test_a_damaged_input_is_named_and_restored_it_works(small, case, harm):
    stage, pattern = INPUTS[case]
    root = small.copy(stage, "damaged")
    path = sorted((root / DATA).glob(pattern))[0]
    whole = path.read_bytes()
    harm(path)
    message = small.attempt(stage, root)
    assert message.startswith("napo: ") and str(path) in message, message
    assert "damaged" in message or "missing" in message
    if harm is os.unlink:  # once is enough
        path.write_bytes(whole)
        resumes(small, stage, root)


@pytest.mark.parametrize(
    ("stage", "name", "harm"),
    [
        ("train full", "model.safetensors", flip),
        ("train full", "optimizer.pt", os.unlink),
        ("train lora", "adapter_model.safetensors", cut),
        ("train lora", "rng_state.pth", flip),
    ],
)
def test_a_damaged_checkpoint_is_named_and_without_it_training_ends_the_same(
    small, stage, name, harm
):
    root = small.copy(stage, "checkpoint")
    small.until(
        stage, root, f"{DATA}/runs/*/seed-0/checkpoint-[24]/checkpoint.json",
        lambda pid: os.kill(pid, signal.SIGKILL),
    )  # fmt: skip
    folder = sorted((root / DATA).glob("runs/*/seed-0/checkpoint-?"))[-1]
    harm(folder / name)
    message = small.attempt(stage, root)
    assert message.startswith(f"napo: {folder}: ") and "delete this checkpoint" in message
    shutil.rmtree(folder)
    resumes(small, stage, root)
