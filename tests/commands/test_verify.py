import shutil

import pytest

from napo.commands.cli import main
from napo.commands.verify import makers, verify
from napo.errors import NapoError
from napo.results import figures
from napo.workspace.manifests import begin, finish, manifest_fingerprint, read_manifest


@pytest.fixture
def data(tmp_path):
    """Two finished stages; the labels of one may still grow."""
    folder = tmp_path / "data" / "tiny"
    for name in ("rows", "annotations"):
        begin(folder / name, {"stage": name})
        (folder / name / "content.parquet").write_bytes(name.encode())
        (folder / name / "ada.csv").write_text("id\n")
        finish(folder / name, keep_open="ada.csv" if name == "annotations" else "")
    return folder


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
    with pytest.raises(NapoError, match=r"manifest\.json is damaged \(it has no files"):
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
