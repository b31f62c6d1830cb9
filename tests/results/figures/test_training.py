"""Training curves: means and bands over seeds, the right panels, blocks of steps."""

import numpy as np
import pandas as pd
from results_fixtures import records

from napo.results import figures


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def panels(figure):
    return {ax.get_title(): ax for ax in figure.axes}


def test_weights_that_only_pick_one_term_a_step_are_stated_not_drawn():
    frame = records(seeds=1)
    terms = [name for name in frame if name.endswith("_gamma")]
    frame[terms] = 0.0
    for at, name in enumerate(terms):
        frame.loc[frame["step"] % len(terms) == at, name] = 1.0
    panel = panels(figures.training_curves(frame))[r"weight $\gamma$"]
    assert not panel.lines
    assert [text.get_text() for text in panel.texts] == ["one term a step,\nat random"]
    frame[terms] = 1.0  # a plain sum is drawn
    assert panels(figures.training_curves(frame))[r"weight $\gamma$"].lines


def test_lines_are_means_over_seeds_with_a_band_from_lowest_to_highest():
    figure = figures.training_curves(records(seeds=2))
    margin = panels(figure)[r"margin $\psi_\Sigma$"]
    drawn = lines(margin)
    assert list(drawn) == ["rejected", "language-biased", "vision-biased"]
    np.testing.assert_allclose(drawn["vision-biased"].get_ydata(), 3 * np.arange(20) + 0.5)
    (band, *_) = margin.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == 0 and heights.max() == 20  # seeds 0 and 1 of the rejected pair


def test_q_is_drawn_for_napo_terms_and_gamma_for_several_terms():
    drawn = panels(figures.training_curves(records()))
    assert len(drawn) == 5
    assert list(lines(drawn["robustness $q$"])) == ["language-biased", "vision-biased"]
    alone = panels(figures.training_curves(records(("rejected",))))
    assert list(alone) == list(drawn)[:3]


def test_the_loss_has_a_panel_and_several_variants_share_each_panel_and_one_legend():
    frame = pd.concat([records(), records(("rejected",)).assign(variant="dpo", loss=2.0)])
    figure = figures.training_curves(frame)
    loss = lines(panels(figure)[r"loss $\mathcal{L}$"])
    assert {name: set(line.get_ydata()) for name, line in loss.items()} == {"dpo": {2}, "A1": {1}}
    margins = lines(panels(figure)[r"margin $\psi_\Sigma$"])
    assert len(margins) == 4 and "dpo, rejected" in margins
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "dpo", "A1", "rejected", "language-biased", "vision-biased",
    ]  # fmt: skip


def test_a_long_run_is_drawn_in_blocks_and_the_axis_says_so():
    figure = figures.training_curves(records(("rejected",), seeds=1, steps=120))
    (line,) = lines(panels(figure)[r"margin $\psi_\Sigma$"]).values()
    assert len(line.get_xdata()) == 60
    np.testing.assert_allclose(line.get_ydata()[:2], [0.5, 2.5])
    assert figure.axes[0].get_xlabel() == "step (means of up to 2)"


def test_pretraining_has_a_panel_for_each_stage():
    log = pd.DataFrame({"stage": ["vision"] * 3 + ["language"] * 4, "step": range(7), "loss": 2.0})
    figure = figures.pretraining(log)
    assert [ax.get_title() for ax in figure.axes] == ["vision stage", "language stage"]
    assert [len(ax.lines[0].get_xdata()) for ax in figure.axes] == [3, 4]
