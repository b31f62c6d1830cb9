from napo.stages.session import check_parameters, open_session


def test_declared_parameters_pass_beside_a_users_variables_and_numbers_become_text():
    declared = {"profile": str, "pretrain": bool, "steps": int, "rate": float, "seeds": str}
    values = {"profile": "tiny", "pretrain": False, "steps": 3, "rate": 0.5, "seeds": 0}
    checked = check_parameters({**values, "mine": 1}, declared, ["mine = 1"])
    assert checked == {**values, "seeds": "0"}


def test_a_session_for_scripts_opens_profile_and_workspace(tmp_path):
    opened = open_session("smoke", str(tmp_path))
    assert opened.workspace.data == tmp_path / "data" / "smoke"
    assert opened.seeds() == [0]
    assert opened.seeds("3,4") == [3, 4]
