from napo.stages.session import check_parameters, open_session

DECLARED = {"profile": str, "pretrain": bool, "steps": int, "rate": float}
VALUES = {"profile": "tiny", "pretrain": False, "steps": 3, "rate": 0.5}


def test_declared_parameters_pass_with_their_values():
    assert check_parameters(VALUES, DECLARED, ["x = 1"]) == VALUES


def test_a_users_own_variable_is_no_parameter():
    assert check_parameters({**VALUES, "mine": 1}, DECLARED, ["mine = 1"]) == VALUES


def test_a_number_given_for_text_is_taken_as_text():
    assert check_parameters({"seeds": 0}, {"seeds": str}, []) == {"seeds": "0"}


def test_a_session_for_scripts_opens_profile_and_workspace(tmp_path):
    opened = open_session("smoke", str(tmp_path))
    assert opened.workspace.data == tmp_path / "data" / "smoke"
    assert opened.seeds() == [0]
    assert opened.seeds("3,4") == [3, 4]
