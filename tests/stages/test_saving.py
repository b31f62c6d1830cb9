"""A notebook's figure is saved in one call; names follow from the notebook's parameters."""

import pytest

from napo import stages
from napo.errors import NapoError
from napo.results import figures
from napo.stages.session import open_session
from napo.workspace.files import read_json


def names(session):
    return sorted(
        path.name.removesuffix(".csv") for path in session.workspace.figures.glob("*.csv")
    )


def test_fig3_is_written_for_page_and_column_and_other_values_of_q_are_in_its_name(tmp_path):
    for qs in ("", "0.9,0.1,0.3,0.5,0.7", "0.2"):
        session = open_session("smoke", str(tmp_path), qs=qs)
        values = [float(q) for q in qs.split(",")] if qs else figures.PAPERS_QS
        curves = figures.loss_curves(values, points=20)
        line = stages.save(session, figures.fig3(curves), "fig3", curves)
        assert str(session.workspace.figures) in line and "column" in line
    assert names(session) == ["fig3", "fig3-column", "fig3-q-0.2", "fig3-q-0.2-column"]


def test_training_curves_are_named_by_variant_and_other_seeds_and_know_their_runs(tmp_path):
    session = open_session("smoke", str(tmp_path))
    stages.make_rows(session)
    stages.build_rows(session)
    stages.score_reference(session)
    for seeds in ("", "3"):
        session = open_session("smoke", str(tmp_path), variant="dpo", seeds=seeds, tune="")
        stages.train(session, "dpo", int(seeds or 0))
        records = stages.records(session, "dpo", seeds)
        stages.save(session, figures.training_curves(records), "training", records)
    folder = session.workspace.figures
    assert names(session) == ["training-dpo-full", "training-dpo-full-seeds-3"]
    made_from = read_json(folder / "training-dpo-full-seeds-3.provenance.json")["inputs"]
    assert made_from["dpo/seed-3"]["settings"]["seed"] == 3


def test_an_unknown_figure_is_an_error_with_the_nearest_name(tmp_path):
    curves = figures.loss_curves([0.5], points=5)
    with pytest.raises(NapoError, match=r"Unknown figure 'fig33'. Did you mean 'fig3'"):
        stages.save(open_session("smoke", str(tmp_path)), figures.fig3(curves), "fig33", curves)
