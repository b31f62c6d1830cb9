"""Weights and q of single pairs: their curves, and how they spread in training."""

import numpy as np
import pandas as pd
import pytest
from results_fixtures import records

from napo.results import figures


def test_the_curves_are_the_functions_that_train():
    curves = figures.pair_curves(points=7).set_index("relative_margin")  # -3, -2, ... 3
    assert curves.loc[1.0, "weight_1"] == pytest.approx(1 + np.tanh(1))
    assert curves.loc[1.0, "weight_0.5"] == pytest.approx(1 + np.tanh(1) / 2)
    assert (curves["weight_0"] == 1).all()
    assert curves.loc[-2.0, "q"] == pytest.approx(1 / (1 + np.exp(-4)))
    assert curves.loc[-3.0, "q_eq12"] == pytest.approx(1 / (1 + np.exp(-0.03)))
    panels = figures.pair_readings(figures.pair_curves()).axes
    assert [len(ax.get_legend().get_texts()) for ax in panels] == [3, 2]


def with_weights(steps=2):
    """Records of 21 pairs a step; the weights of step k are k, k + 0.05, ... k + 1."""
    rows = [
        {"step": step, "id": str(pair), "seed": 0, "rejected_weight": step + pair / 20,
         "rejected_gamma": 1.0, "vision_biased_q": 0.5}
        for step in range(steps) for pair in range(21)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_quantiles_are_those_of_the_pairs_of_a_step():
    first, second = figures.pair_quantiles(with_weights()).to_dict("records")
    assert (first["quantity"], first["term"], first["step"]) == ("weight", "rejected", 0)
    names = ("lowest", "low", "median", "high", "highest")
    assert [first[name] for name in names] == pytest.approx([0.05, 0.25, 0.5, 0.75, 0.95])
    assert second["median"] == pytest.approx(1.5)


def test_a_long_run_is_summarised_in_blocks_of_steps():
    made = figures.pair_quantiles(with_weights(steps=60))
    assert len(made) == 30 and made["step"].iloc[:2].tolist() == [0.5, 2.5]
    assert made["median"].iloc[0] == pytest.approx(1.0)  # of 0 ... 1 and 1 ... 2


def test_a_panel_is_drawn_for_each_term_and_none_where_pairs_share_their_values():
    frame = with_weights().assign(language_biased_q=lambda part: part["rejected_weight"] / 3)
    figure = figures.pairs_over_training(figures.pair_quantiles(frame))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["weight of a pair, rejected", "$q$ of a pair, language-biased"]
    assert figures.pairs_over_training(figures.pair_quantiles(records())) is None
