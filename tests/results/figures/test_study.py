import numpy as np
import pytest
from study_fixtures import cell, outcome, steps

from napo.results import figures, verdicts

RIGHT = np.array([100.0] * 6 + [0.0] * 4)


@pytest.fixture(scope="module")
def summary():
    cells = {}
    for loss, shift in (("dpo", 0), ("pair", 3)):
        for rate in (0, 0.2, 0.4):
            values = np.roll(RIGHT, shift)
            cells[cell(loss, rate=rate)] = outcome(accuracy=values, LP=values, memorised=values)
    return verdicts.summary(verdicts.grouped(cells))


def test_accuracy_is_a_line_for_each_loss_over_the_rates(summary):
    (ax,) = figures.accuracy_by_rate(summary).axes
    assert ax.get_title() == "flipped pairs (long)"
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0, 20, 40]] * 2


def test_differences_have_a_panel_for_each_noise_and_metric_and_no_row_for_dpo(summary):
    figure = figures.differences(summary)
    assert len(figure.axes) == 3 * 3
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["pair"]


def test_a_dot_is_filled_only_where_the_interval_does_not_hold_zero():
    cells = {cell("dpo"): outcome(accuracy=np.zeros(50))}
    cells[cell("pair")] = outcome(accuracy=np.full(50, 100.0))
    cells[cell("mae")] = outcome(accuracy=np.array([100.0] + [0.0] * 49))
    (ax,) = figures.differences(verdicts.summary(verdicts.grouped(cells))).axes
    dots = {line.get_xdata()[0]: line for line in ax.lines if line.get_marker() == "o"}
    assert dots[2].get_markerfacecolor() == "white" != dots[100].get_markerfacecolor()


def test_memorised_noise_has_a_panel_for_each_noise():
    parts = verdicts.by_part(
        {cell("dpo", rate=rate): steps([0] * 4, [1] * 4) for rate in (0.2, 0.4)}
    )
    figure = figures.memorised_by_part(parts)
    assert [ax.get_title()[:4] for ax in figure.axes] == ["20 %", "40 %"]
