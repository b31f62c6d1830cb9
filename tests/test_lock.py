"""requirements.lock: exact versions, with hashes of all files except torch's."""

import os
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "requirements.lock").read_text()
ENTRIES = re.findall(r"^(\S+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})*)$", TEXT, re.M)


def test_each_line_is_an_exact_version_and_only_torch_has_no_hashes():
    lines = "".join(f"{name}=={pin}{hashes}\n" for name, pin, hashes in ENTRIES)
    assert lines == re.sub(r"^#.*\n", "", TEXT, flags=re.M)  # so no line is anything else
    assert [name for name, _, hashes in ENTRIES if not hashes] == ["torch"]
    assert len(ENTRIES) > 100


def test_the_lock_names_no_package_index():
    assert "://" not in TEXT and "--index" not in TEXT and "--find-links" not in TEXT


def test_the_installed_versions_are_those_of_the_lock():
    installed = {name: version(name).partition("+")[0] for name, _, _ in ENTRIES}
    assert installed == {name: pin for name, pin, _ in ENTRIES}


def test_setup_installs_only_torch_and_napo_without_hashes(tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    output = subprocess.run(
        ["make", "--no-print-directory", "-n", "setup", f"VENV={tmp_path / 'new'}"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    installs = [line for line in output.splitlines() if "pip" in line and " install " in line]
    builder, hashed, torch, napo = installs
    assert "--require-hashes --no-deps" in builder
    assert "--require-hashes --no-deps --no-build-isolation" in hashed
    assert "grep '^torch=='" in torch and " -r " not in torch
    assert napo.endswith("--no-deps --no-build-isolation -e .")
