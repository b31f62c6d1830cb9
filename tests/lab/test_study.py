from study_fixtures import cell, outcome

from napo.lab import study
from napo.results import verdicts
from napo.stages.session import open_session


def test_the_losses_of_a_grid_say_what_they_are_told(tmp_path):
    table = study.losses(open_session("tiny", str(tmp_path)))
    assert table.index.tolist() == ["dpo", "napo", "q-0.5", "pair", "mae", "rdpo-true", "ipo"]
    assert table.loc["napo", "q"] == "paper" and table.loc["dpo", "q"] == ""
    assert table.loc["rdpo-true", "told"] == "the true rate"
    assert table.loc["pair", "weight"] == "of each pair"


def test_the_summary_reads_as_value_difference_and_verdict():
    cells = {cell("dpo", rate=rate): outcome(accuracy=[100, 0] * 30) for rate in (0, 0.4)}
    cells[cell("pair")] = outcome(accuracy=[100] * 60)
    table = study.summary_to_read(verdicts.summary(verdicts.grouped(cells)))
    assert table.index.tolist() == [
        ("long", "without noise", "dpo"), ("long", "at 40 % flips", "dpo"),
        ("long", "at 40 % flips", "pair"),
    ]  # fmt: skip
    value, change = table.loc[("long", "at 40 % flips", "pair"), "held-out accuracy"].split(" · ")
    assert value == "100.0" and change.startswith("+50.0 [+3") and change.endswith("better")
