import pytest

from napo.errors import NapoError
from napo.workspace.folders import Workspace, run_name


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 300, "/tmp/\udcff"])
def test_a_name_that_is_no_path_is_refused(name):
    with pytest.raises(NapoError, match="is no path"):
        Workspace.open(name, "smoke")


def test_runs_are_named_by_variant_tuning_and_seed(tmp_path):
    assert run_name("A1", 2) == "A1/seed-2"
    assert Workspace(tmp_path, "tiny").run("A1", 0, "lora").parts[-2:] == ("A1-lora", "seed-0")


def test_a_file_is_no_workspace(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NapoError, match="is no folder; name one with `workspace`"):
        Workspace.open(str(tmp_path / "file"), "smoke")


def test_a_profile_names_folders_under_the_root_or_absolute(tmp_path):
    workspace = Workspace(tmp_path, "tiny")
    assert workspace.path("data/x") == tmp_path / "data" / "x"
    assert str(workspace.path("/data/x")) == "/data/x"
    with pytest.raises(NapoError, match="unknown home folder; write the full path"):
        workspace.path("~nobody-of-this-name/x")
