"""The command line: help, exit codes, and speed."""

import subprocess
import sys

import pytest

from napo.commands import cli
from napo.errors import NapoError

COMMANDS = ["reproduce", "fetch", "check", "figures", "verify", "budget", "label-studio export",
            "label-studio import"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_an_example(capsys, command):
    assert cli.main([*command.split(), "--help"]) == 0
    assert f"Example: napo {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["reproduec"], "Did you mean 'reproduce'"),
        (["check", "--qiuck"], "--quick"),
        (["reproduce", "--cores", "0"], "greater than or equal to 1"),
        (["reproduce", "--config", "seeds=0"], "give --seeds or --tune"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(capsys, arguments, part):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("napo: ") and part in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (NapoError("Row 3 is empty; drop it."), 1, "napo: Row 3 is empty; drop it.\n"),
        (KeyboardInterrupt(), 130, "Interrupted; run the same command to go on.\n"),
    ],
)
def test_an_error_becomes_a_sentence_and_an_exit_code(monkeypatch, capsys, error, code, text):
    def fail(*_):
        raise error

    monkeypatch.setattr(cli, "load_profile", fail)
    assert cli.main(["verify"]) == code
    assert capsys.readouterr().err == text


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--profile", "tinny"]])
def test_help_and_a_refused_profile_import_nothing_slow(arguments):
    look = f"import sys; from napo.commands.cli import main; main({arguments}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert not {"torch", "pandas", "snakemake"} & set(done.stdout.split())


def test_a_reader_that_ends_early_gets_no_traceback():
    call = [sys.executable, "-m", "napo", "--help"]
    process = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode == 141
