"""The comparison of variants: base line, halves, order and colours."""

from results_fixtures import summary_frame, texts

from napo.config.variants import VARIANTS
from napo.results import figures


def test_the_base_is_a_dashed_line_and_halves_are_marks():
    figure = figures.comparison(summary_frame())
    assert [ax.get_title() for ax in figure.axes] == ["CB", "LP"]
    lp = figure.axes[1]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["Base model · base", "DPO on RLAIF-V · dpo", "Full method · A1"]
    assert {ax.get_xlabel() for ax in figure.axes} == {"share of instances (%)"}
    dashed = [line for line in lp.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[40.0, 40.0]]
    dots = [line.get_xdata()[0] for line in lp.lines if line.get_marker() == "o"]
    assert dots == [40.0, 41.0, 42.0]
    marks = [line.get_xdata()[0] for line in lp.lines if line.get_marker() == 5]
    assert marks == [47.0, 48.0, 49.0]


def test_variants_are_in_the_order_of_the_tables_with_unknown_ones_last():
    figure = figures.comparison(summary_frame(("zeta", "VB1", "A1-lora", "dpo", "base")))
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    codes = [name.split(" · ")[-1] for name in shown]
    assert codes == ["base", "dpo", "A1-lora", "VB1", "zeta"]


def test_a_missing_run_is_stated():
    frame = summary_frame()
    missing = (frame["variant"] == "A1") & (frame["metric"] == "LP")
    assert "not run" in texts(figures.comparison(frame[~missing]))
    assert "not run" not in texts(figures.comparison(frame))


def test_a_variant_has_one_colour_with_and_without_lora():
    colours = [figures.variant_colour(name) for name in ("A1", "A1-lora", "dpo")]
    assert colours[0] == colours[1] != colours[2]
    colours = [entry.colour for entry in VARIANTS.values() if entry.tables]
    assert all(colours) and len(set(colours)) == len(colours)
