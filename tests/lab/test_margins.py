import re
from html import escape

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_fixtures import ids, row, text_of
from results_fixtures import margin_frame

from napo import lab, stages
from napo.errors import NapoError
from napo.lab.margins import bars, response_card, rows_per_bin
from napo.results import figures


@given(
    values=st.lists(st.floats(-50, 50, width=16), min_size=1, max_size=80), bins=st.integers(1, 40)
)
@settings(max_examples=120, deadline=None)
def test_bins_hold_every_value_once_and_as_many_as_the_histogram_counts(values, bins):
    low, high = min(values), max(values)  # the last bin includes its upper edge
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    parts = rows_per_bin(values, edges)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(values)))
    assert [len(part) for part in parts] == np.histogram(values, edges)[0].tolist()


@pytest.fixture(scope="module")
def drawn():
    """Margins with groups, questions and others, unsure ones too; their figure and bars."""
    frame = margin_frame(groups=("question", "description", "no-image"), n=12, unsure=2)
    figure = figures.fig4(frame)
    return frame, figure, bars(frame, figure)


def test_bars_hold_the_responses_that_the_figure_draws_each_once(drawn):
    frame, figure, bars = drawn
    cells = [(statistic, kind) for statistic in ("sum", "mean") for kind in
             ("language_biased", "vision_biased")]  # fmt: skip
    for ax, (statistic, kind) in zip(figure.axes, cells, strict=True):
        rugs = [line for line in ax.lines if line.get_marker() == "|"]
        for rug, label in zip(rugs, ("biased", "unbiased"), strict=True):
            mine = [b for b in bars if (b.statistic, b.kind, b.label) == (statistic, kind, label)]
            positions = [at for bar in mine for at in bar.rows]
            assert len(positions) == len(set(positions))
            shown = frame.iloc[positions]
            assert set(shown["label"]) == {label} and set(shown["kind"]) == {kind}
            values = shown[f"margin_{statistic}"]
            assert sorted(values) == sorted(rug.get_xdata())
            for bar in mine:
                inside = frame.iloc[list(bar.rows)][f"margin_{statistic}"]
                assert ((inside >= bar.low) & (inside <= bar.high)).all()


def test_bars_lie_where_the_figure_draws_them(drawn):
    for bar in drawn[2]:
        left, top, width, height = bar.box
        assert min(left, top) >= 0 and max(left + width, top + height) <= 1
        column, line = bar.kind == "vision_biased", bar.statistic == "mean"
        assert (left > 0.5) == column and (top > 0.5) == line


def test_every_bar_can_be_met_by_the_mouse(drawn):
    """No bar is wholly under one that comes later."""
    _, _, bars = drawn
    for at, (left, top, width, height) in enumerate(bar.box for bar in bars):
        for x, y, w, h in (bar.box for bar in bars[at + 1 :]):
            eps = 1e-9
            over_x = x <= left + eps and x + w >= left + width - eps
            assert not (over_x and y <= top + eps and y + h >= top + height - eps)


@pytest.mark.parametrize("label", ["biased", "unsure"])
def test_one_label_or_none_still_has_its_bars(label):
    frame = margin_frame(equal=0, n=6).assign(label=label)
    found = bars(frame, figures.fig4(frame))
    assert len({at for bar in found for at in bar.rows}) == (24 if label == "biased" else 0)


def test_margins_that_are_all_the_same_stand_in_bars_side_by_side():
    frame = margin_frame(n=6).assign(margin_sum=0.0, margin_mean=0.0)
    found = bars(frame, figures.fig4(frame))
    assert len(found) == 8 and all(len(bar.rows) == 6 for bar in found)


def test_choosing_a_bar_shows_exactly_its_rows(smoke):
    frame, data = stages.margins(smoke), stages.biased_rows(smoke)
    tool = lab.margins(frame, data)
    tool.wake()
    assert "Choose a bar" in tool.heading.value and ids(tool.view.value) == []
    for at, bar in enumerate(tool.bars):
        tool.chart.chosen = at
        shown = []
        for page in range(-(-len(bar.rows) // 6)):
            tool.pages.page = page
            shown += ids(tool.view.value)
        assert shown == [frame["id"].iloc[at] for at in bar.rows]
        assert escape(str(bar)) in tool.heading.value
    tool.chart.chosen = -1
    assert "Choose a bar" in tool.heading.value and ids(tool.view.value) == []


def test_the_chart_tells_the_front_end_every_bar_in_words(drawn):
    frame, figure, bars = drawn
    data = [row(id) for id in dict.fromkeys(frame["id"])]
    tool = lab.margins(frame, data, figure)
    tool.wake()
    assert [bar["text"] for bar in tool.chart.bars] == [str(bar) for bar in bars]
    assert re.fullmatch(
        r"Language-biased, noise-free, summed margin -?[\d.]+ to -?[\d.]+: \d+ responses?",
        next(str(bar) for bar in bars if bar.label == "biased"),
    )
    assert tool.chart.picture.startswith("data:image/png")


def test_a_card_behind_a_bar_tells_label_margins_and_both_responses():
    entry = {"label": "unbiased", "kind": "vision_biased", "equal_to_chosen": False}
    said = text_of(response_card(row("r"), entry | {"margin_sum": 2.5, "margin_mean": 0.25}))
    assert "noise (labelled unbiased); margin 2.50, per token 0.250" in said
    assert "Chosenthe cat is red ." in said and "Vision-biasedthe cat is black ." in said


def test_margins_of_other_rows_are_refused_by_name():
    with pytest.raises(NapoError, match=r"30 responses of the margins .*\(0, 1, 10, 11, 12 \.\.\."):
        lab.margins(margin_frame(n=15), [row("z")])
