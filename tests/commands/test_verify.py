import shutil
import subprocess
import sys

import pytest

from napo.commands.verify import makers, verify
from napo.errors import NapoError
from napo.results import figures
from napo.workspace.manifests import begin, finish, manifest_fingerprint, read_manifest


@pytest.fixture
def data(tmp_path):
    """Two finished stages, one of them with labels that go on growing."""
    folder = tmp_path / "data" / "tiny"
    for name in ("rows", "annotations"):
        begin(folder / name, {"stage": name})
        (folder / name / "content.parquet").write_bytes(name.encode())
        (folder / name / "ada.csv").write_text("id\n")
        finish(folder / name, keep_open="ada.csv" if name == "annotations" else "")
    return folder


def problems(data):
    return {(finding.path.name, finding.problem) for finding in verify(data)[1]}


def test_a_workspace_as_it_was_written_has_no_finding(data):
    assert verify(data) == (3, [])
    (data / "annotations" / "ada.csv").write_text("id\n1\n")  # labelling goes on
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


def test_rows_that_are_gone_or_are_others_than_the_rest_was_made_from_are_named(data):
    begin(data / "reference" / "a", {"rows": manifest_fingerprint(read_manifest(data / "rows"))})
    finish(data / "reference" / "a")
    assert problems(data) == set()
    (data / "rows").rename(data / "aside")
    shutil.move(data / "aside", data.parent / "aside")
    assert problems(data) == {("rows", "missing")}
    begin(data / "rows", {"stage": "rows"})
    (data / "rows" / "content.parquet").write_bytes(b"others")
    finish(data / "rows")
    assert problems(data) == {("rows", "changed")}


def test_a_provenance_that_lacks_something_is_a_sentence(data):
    (data / "rows" / "provenance.json").write_text('{"machine": {}, "code": {}}')
    with pytest.raises(NapoError, match=r"provenance\.json is damaged"):
        makers(data)


def test_a_figure_and_the_table_behind_it_are_verified_too(data, tmp_path):
    folder = tmp_path / "figures" / "tiny"
    curves = figures.loss_curves(points=20)
    figures.save(figures.fig3(curves), folder, "fig3", curves)
    assert verify(data, folder) == (7, [])
    (folder / "fig3.csv").write_text("loss\n")
    (folder / "fig3.svg").unlink()
    found = {(each.path.name, each.problem) for each in verify(data, folder)[1]}
    assert found == {("fig3.csv", "changed"), ("fig3.svg", "missing")}


def test_the_command_line_says_what_it_found_and_its_exit_code_too(data, tmp_path):
    def call(*extra):
        given = ("--profile", "tiny", "--workspace", str(tmp_path))
        line = [sys.executable, "-m", "napo", "verify", *given, *extra]
        return subprocess.run(line, capture_output=True, text=True)

    whole = call()
    assert whole.returncode == 0 and "3 files hashed, 0 not" in whole.stdout
    (data / "rows" / "ada.csv").write_text("other")
    changed = call()
    assert changed.returncode == 1 and "changed" in changed.stdout
    with pytest.raises(NapoError, match="holds no finished stage"):
        verify(tmp_path / "nothing")
