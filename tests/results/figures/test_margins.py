"""Fig. 4: its panels, numbers, densities and rugs."""

import numpy as np
import pytest
from results_fixtures import margin_frame, texts

from napo.noise.separation import separation
from napo.results import figures


def test_fig4_has_sums_above_averages_and_language_left_of_vision():
    figure = figures.fig4(margin_frame())
    panels = figure.axes
    assert len(panels) == 4
    assert "Language-biased" in panels[0].get_title() and "Vision-biased" in panels[1].get_title()
    assert "average" in panels[2].get_xlabel() and "average" not in panels[0].get_xlabel()


def test_fig4_prints_the_numbers_that_separation_computes():
    frame = margin_frame()
    facts = separation(frame).query("kind == 'vision_biased' and statistic == 'mean'")
    kept, without = facts.sort_values("equal_kept", ascending=False).to_dict("records")
    printed = [text.get_text() for text in figures.fig4(frame).axes[3].texts]
    area = "AUROC {auroc:.2f} [{auroc_low:.2f}, {auroc_high:.2f}]"
    assert printed[0] == area.format(**kept)
    assert printed[1] == "30 noise-free, 30 noise"
    assert printed[2] == "without the 4 equal to $y_w$: " + area.format(**without)


def test_fig4_draws_every_labelled_response_in_the_rug_and_in_the_median():
    frame = margin_frame(unsure=5)
    ax = figures.fig4(frame).axes[0]
    part = frame[frame["kind"] == "language_biased"]
    rugs = [line for line in ax.lines if line.get_marker() == "|"]
    for rug, label in zip(rugs, ("biased", "unbiased"), strict=True):
        values = part.loc[part["label"] == label, "margin_sum"]
        np.testing.assert_array_equal(rug.get_xdata(), values)
        assert any(list(line.get_xdata()) == [values.median()] * 2 for line in ax.lines)


@pytest.mark.parametrize("spread", [1e-6, 0.05, 0.8, 5.0])
def test_densities_of_fig4_stay_visible_however_narrow_they_are(spread):
    rng = np.random.default_rng(1)
    frame = margin_frame(equal=0)
    for column in ("margin_sum", "margin_mean"):
        frame[column] = np.where(
            frame["label"] == "biased",
            rng.normal(60, 30, len(frame)),
            rng.normal(0, 1, len(frame)) * spread,
        )
    for ax in figures.fig4(frame).axes:
        curves = [line for line in ax.lines if len(line.get_xdata()) == 300]
        tops = [max(line.get_ydata()) for line in curves]
        bars = [patch.get_data().values.max() for patch in ax.patches]
        assert len(curves) == 2 and max(tops) <= ax.get_ylim()[1]
        assert min(tops) > 0.25 * min(bars)


def test_fig4_shows_only_questions_where_groups_are_known():
    figure = figures.fig4(margin_frame(groups=("question", "description", "no-image"), n=12))
    assert "questions" in figure.axes[0].get_title()
    assert "12 noise-free, 12 noise" in texts(figure)


@pytest.mark.parametrize("label", ["biased", "unbiased", "unsure"])
def test_fig4_can_be_drawn_with_one_label_or_none(label):
    figure = figures.fig4(margin_frame(equal=0, n=6).assign(label=label))
    words = "nothing labelled" if label == "unsure" else "AUROC not defined"
    assert words in texts(figure)


def test_fig4_can_be_drawn_with_equal_margins():
    frame = margin_frame(n=6).assign(margin_sum=0.0, margin_mean=0.0)
    assert any(text.startswith("AUROC 0.50") for text in texts(figures.fig4(frame)))
