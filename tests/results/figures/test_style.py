"""All figures: same data, same bytes; no text cut off; the user's settings stay."""

import subprocess
import sys

import matplotlib as mpl
import pandas as pd
import pytest
from PIL import Image
from results_fixtures import margin_frame, records, summary_frame

from napo.results import figures


def everything():
    """Each kind of figure, once."""
    curves = figures.loss_curves([0.1, 0.9], points=50)
    log = pd.DataFrame({"stage": ["vision", "language"] * 5, "step": range(10), "loss": 1.0})
    return {
        "fig3": figures.fig3(curves),
        "fig4": figures.fig4(margin_frame()),
        "training": figures.training_curves(records()),
        "pretraining": figures.pretraining(log),
        "comparison": figures.comparison(summary_frame()),
    }


def test_the_same_data_gives_the_same_bytes_in_every_format(tmp_path):
    for folder in ("one", "two"):
        fig3 = figures.fig3(figures.loss_curves([0.5], points=20))
        figures.save(fig3, tmp_path / folder, "fig3", margin_frame())
    files = sorted((tmp_path / "one").iterdir())
    assert {path.suffix for path in files} == {".pdf", ".svg", ".png", ".csv", ".json"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_saved_figures_embed_their_fonts_and_hold_no_date(tmp_path):
    figure = figures.fig3(figures.loss_curves([0.5], points=20))
    paths = figures.save(figure, tmp_path, "fig3", pd.DataFrame({"x": [1]}))
    assert [path.name for path in paths] == ["fig3.pdf", "fig3.svg", "fig3.png", "fig3.csv"]
    pdf, svg = paths[0].read_bytes(), paths[1].read_text()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert "<dc:date>" not in svg and "<text" not in svg
    with Image.open(paths[2]) as image:
        assert round(image.width / image.info["dpi"][0], 1) == 6.9


def test_no_text_of_a_figure_is_cut_off_or_overlaps_another():
    for name, figure in everything().items():
        with figures.style():
            figure.draw_without_rendering()
        for ax in figure.axes:
            box = ax.get_tightbbox()
            assert box.x0 > -1 and box.x1 < figure.bbox.x1 + 1, name
            assert box.y0 > -1 and box.y1 < figure.bbox.y1 + 1, name
            words = [text.get_window_extent() for text in ax.texts]
            assert not any(a.overlaps(b) for at, a in enumerate(words) for b in words[:at]), name
        for at, ax in enumerate(figure.axes):
            others = [other.get_tightbbox() for other in figure.axes[:at]]
            assert not any(ax.get_tightbbox().overlaps(other) for other in others), name


def test_a_users_own_style_changes_no_figure_and_stays_as_it_was():
    curves = figures.loss_curves([0.5], points=20)
    plain = figures.fig3(curves)._repr_png_()
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9}):
        before = dict(mpl.rcParams)
        assert figures.fig3(curves)._repr_png_() == plain
        assert dict(mpl.rcParams) == before


def test_drawing_needs_no_pyplot_and_importing_needs_no_torch():
    code = (
        "import sys; from napo.results import figures; assert 'torch' not in sys.modules;"
        "import pandas as pd; f = figures.pretraining(pd.DataFrame({'step': [1], 'loss': [1.0]}));"
        "f._repr_png_(); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("draw", ["fig3", "fig4"])
def test_figures_have_the_same_panels_in_a_column_and_on_a_page(draw):
    data = figures.loss_curves() if draw == "fig3" else margin_frame()
    panels = []
    for width in (figures.PAGE, figures.COLUMN):
        figure = getattr(figures, draw)(data, width=width)
        assert figure.get_figwidth() == width
        bounds = figure.get_tightbbox()
        assert bounds.x0 > -0.05 and bounds.x1 < width + 0.05  # nothing is cut off
        panels.append([len(ax.lines) for ax in figure.axes])
    assert panels[0] == panels[1]
