"""requirements.lock: exact versions, a hash for every file that is the same everywhere."""

import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", TEXT, re.M)


def test_every_line_is_an_exact_version_with_its_hashes_and_torch_alone_has_none():
    read = "".join(f"{name}=={pin}{hashes}\n" for name, pin, hashes in ENTRIES)
    assert read == re.sub(r"^#.*\n", "", TEXT, flags=re.M)  # so no line is anything else
    assert [name for name, _, hashes in ENTRIES if not hashes] == ["torch"]
    assert len(ENTRIES) > 100


def test_the_lock_names_no_index_so_each_machine_uses_its_own():
    assert "://" not in TEXT and "--index" not in TEXT and "--find-links" not in TEXT


def test_what_is_installed_here_is_what_the_lock_says():
    there = {name: version(name).partition("+")[0] for name, _, _ in ENTRIES}
    assert there == {name: pin for name, pin, _ in ENTRIES}


def test_setup_installs_nothing_but_torch_and_ourselves_without_a_hash(tmp_path):
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "setup", f"VENV={tmp_path / 'new'}"],
        cwd=ROOT,
        env=plain,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installs = [line for line in said.splitlines() if "pip" in line and " install " in line]
    builder, hashed, torch, ourselves = installs
    assert "--require-hashes --no-deps" in builder
    assert "--require-hashes --no-deps --no-build-isolation" in hashed
    assert "grep '^torch=='" in torch and " -r " not in torch
    assert ourselves.endswith("--no-deps --no-build-isolation -e .")
