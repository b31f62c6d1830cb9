import shutil

import pytest

from napo.commands.cli import main
from napo.commands.verify import makers, verify
from napo.config.profile import load_profile
from napo.errors import NapoError
from napo.results import figures
from napo.stages import plan
from napo.stages.session import Session
from napo.workspace.folders import Workspace
from napo.workspace.manifests import begin, finish, manifest_fingerprint, read_manifest


@pytest.fixture
def data(tmp_path):
    """Two finished stages; the labels of one may still grow."""
    workspace = Workspace(tmp_path, "tiny")
    for folder, settings in plan.folders(Session(load_profile("tiny"), workspace), ()):
        if folder.name in ("rows", "annotations"):
            begin(folder, settings)
            (folder / "content.parquet").write_bytes(folder.name.encode())
            (folder / "ada.csv").write_text("id\n")
            finish(folder, keep_open="ada.csv" if folder.name == "annotations" else "")
    return workspace.data


def problems(data, figures=None):
    return {(each.path.name, each.problem) for each in verify(data, figures)[1]}


def test_an_unchanged_workspace_has_no_differences_although_labelling_goes_on(data):
    (data / "annotations" / "ada.csv").write_text("id\n1\n")
    assert verify(data) == (3, [])


def test_a_changed_a_missing_and_an_unlisted_file_are_named(data):
    content = bytearray((data / "rows" / "content.parquet").read_bytes())
    content[0] ^= 1  # one flipped bit
    (data / "rows" / "content.parquet").write_bytes(content)
    (data / "rows" / "ada.csv").unlink()
    (data / "rows" / "stranger.parquet").write_text("?")
    assert problems(data) == {
        ("content.parquet", "changed"),
        ("ada.csv", "missing"),
        ("stranger.parquet", "unlisted"),
    }


def test_other_settings_a_lost_manifest_and_a_damaged_one_are_named(data):
    (data / "rows" / "settings.json").write_text('{"stage": "other"}')
    (data / "annotations" / "manifest.json").unlink()
    begin(data / "runs", {"seed": 0})
    assert problems(data) == {("settings.json", "changed"), ("runs", "unfinished")}
    (data / "rows" / "manifest.json").write_text("[]")
    with pytest.raises(NapoError, match=r"manifest\.json is damaged \(it is \[\]; it should"):
        verify(data)


def test_rows_that_are_missing_or_differ_from_those_used_are_named(data):
    begin(data / "reference" / "a", {"rows": manifest_fingerprint(read_manifest(data / "rows"))})
    finish(data / "reference" / "a")
    assert problems(data) == set()
    shutil.move(data / "rows", data.parent / "aside")
    assert problems(data) == {("rows", "missing")}
    begin(data / "rows", {"stage": "rows"})
    (data / "rows" / "content.parquet").write_bytes(b"others")
    finish(data / "rows")
    assert problems(data) == {("rows", "changed")}


def sealed(folder, settings):
    begin(folder, settings)
    finish(folder)


@pytest.mark.kind("A. A report may only say what its runs had")
def test_a_run_made_again_and_tables_of_other_results_are_named(data):
    run = {"variant": "A1", "seed": 0, "tune": "full", "beta": 0.2, "objective": {}, "data": {}}
    sealed(data / "runs" / "A1" / "seed-0", run)
    sealed(data / "results" / "A1" / "seed-0", {"run": run})
    sealed(data / "results" / "base", {"run": {}})
    made_from = manifest_fingerprint(read_manifest(data / "results" / "base"))
    sealed(data / "tables", {"results": {"base": made_from}})
    assert problems(data) == set()
    shutil.rmtree(data / "runs" / "A1" / "seed-0")
    assert problems(data) == set()  # weights were deleted to save space
    sealed(data / "runs" / "A1" / "seed-0", {**run, "beta": 0.1})
    shutil.copytree(data / "results" / "A1" / "seed-0", data / "results" / "A1" / "seed-1")
    (data / "results" / "base" / "vlind.json").write_text("{}")
    finish(data / "results" / "base")
    assert problems(data) == {
        ("seed-0", "other run"),
        ("seed-1", "other run"),  # a copy would count as another seed
        ("tables", "outdated"),
    }


@pytest.mark.kind("A. A report may only say what its runs had")
def test_folders_with_other_settings_than_the_profiles_are_named(data, tmp_path, capsys, result):
    (tmp_path / "mine.yaml").write_text("extends: tiny\nname: tiny\nmasks: {image: drop}")
    profile = str(tmp_path / "mine.yaml")
    assert main(["verify", "--workspace", str(tmp_path), "--profile", profile]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    result(line.replace(str(tmp_path), "..."))
    assert line.startswith("settings") and "(image: 'mask_token' there, 'drop' now)" in line


def test_a_damaged_provenance_is_a_sentence(data):
    (data / "rows" / "provenance.json").write_text('{"machine": {}, "code": {}}')
    with pytest.raises(NapoError, match=r"provenance\.json is damaged"):
        makers(data)


def test_a_figure_and_the_table_behind_it_are_verified(data, tmp_path):
    folder, curves = tmp_path / "figures" / "tiny", figures.loss_curves(points=20)
    figures.save(figures.fig3(curves), folder, "fig3", curves)
    assert verify(data, folder) == (7, [])
    (folder / "fig3.csv").write_text("loss\n")
    (folder / "fig3.svg").unlink()
    assert problems(data, folder) == {("fig3.csv", "changed"), ("fig3.svg", "missing")}


def test_the_command_counts_files_and_exits_with_1_if_one_differs(data, tmp_path, capsys):
    command = ["verify", "--workspace", str(tmp_path)]
    assert main(command) == 0
    assert "3 files hashed, 0 not" in capsys.readouterr().out
    (data / "rows" / "ada.csv").write_text("other")
    assert main(command) == 1
    assert "changed" in capsys.readouterr().out
    shutil.rmtree(data)
    assert main(command) == 1
    assert "holds no finished stage" in capsys.readouterr().err
