import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from napo.errors import NapoError
from napo.stages.session import check_parameters, open_session


def test_declared_parameters_pass_beside_a_users_variables_and_numbers_become_text():
    declared = {"profile": str, "pretrain": bool, "steps": int, "rate": float, "seeds": str}
    values = {"profile": "tiny", "pretrain": False, "steps": 3, "rate": 0.5, "seeds": 0}
    checked = check_parameters({**values, "mine": 1}, declared, ["mine = 1"])
    assert checked == {**values, "seeds": "0"}


@pytest.mark.kind("parameters change meaning on the way")
@pytest.mark.parametrize("value", [7, 1e5, 0.5, float("nan"), None, True, ["ann"]], ids=repr)
def test_a_text_parameter_that_papermill_changed_is_refused_with_the_option_that_works(
    value, result
):
    with pytest.raises(NapoError) as error:
        check_parameters({"annotator": value}, {"annotator": str}, [])
    result(error.value)
    assert "give a text (on papermill's command line: -r annotator VALUE)" in str(error.value)


@pytest.mark.kind("parameters change meaning on the way")
@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), ([0, 1], "0,1"), ((3,), "3"), ("0,1", "0,1"), ("", ""), ([0.1, 0.5], "0.1,0.5")],
)
def test_lists_of_numbers_are_taken_as_lists_numbers_and_texts(value, text, result):
    result(text)
    assert check_parameters({"seeds": value}, {"seeds": str}, []) == {"seeds": text}


@pytest.mark.parametrize("value", [[0, "x"], [], [True], None, {"a": 1}])
def test_other_lists_are_refused(value):
    with pytest.raises(NapoError, match="Parameter seeds is"):
        check_parameters({"seeds": value}, {"seeds": str}, [])


@pytest.mark.kind("parameters change meaning on the way")
@pytest.mark.parametrize("value", ["007", "Nan", "None", "1e5", "true", "[0]", "no", "a: b #c"])
def test_papermills_raw_option_keeps_a_text(value, tmp_path):
    notebook = Path(__file__).parents[2] / "notebooks" / "02_annotate_noise.ipynb"
    call = [str(notebook), str(tmp_path / "out.ipynb"), "--prepare-only"]
    done = CliRunner().invoke(papermill, [*call, "-r", "annotator", value])
    assert done.exit_code == 0, done.output
    cells = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    (injected,) = (c for c in cells if "injected-parameters" in c["metadata"].get("tags", ()))
    assert f"annotator = {json.dumps(value)}" in "".join(injected["source"])


@pytest.mark.kind("A. No edit of a parameters cell changes the pipeline")
def test_a_parameter_that_a_notebook_sets_again_after_papermill_is_refused(result):
    cells = ['seeds: str = ""', '# Parameters\nseeds = "0"\n', 'seeds: str = "1"']
    with pytest.raises(NapoError, match="Parameter seeds was given as '0' and is '1'") as error:
        check_parameters({"seeds": "1"}, {"seeds": str}, cells)
    result(error.value)
    assert check_parameters({"seeds": "0"}, {"seeds": str}, cells) == {"seeds": "0"}


def test_a_session_for_scripts_opens_profile_and_workspace(tmp_path):
    opened = open_session("smoke", str(tmp_path))
    assert opened.workspace.data == tmp_path / "data" / "smoke"
    assert opened.seeds() == [0]
    assert opened.seeds("3,4") == [3, 4]
