import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from PIL import Image
from results_fixtures import margin_frame

from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.noise.separation import separation
from napo.results import figures
from napo.results.figures.gallery import wrap
from napo.results.figures.style import quiet_glyphs


def texts(figure):
    """All words of a figure, panels, titles and legends included."""
    found = [text.get_text() for text in figure.texts]
    for ax in figure.axes:
        found += [text.get_text() for text in ax.texts]
        found += [ax.get_title(loc=where) for where in ("left", "center")]
        found += [ax.get_xlabel(), ax.get_ylabel()]
    for legend in figure.legends:
        found += [text.get_text() for text in legend.get_texts()]
    return [text for text in found if text]


def records(terms=("rejected", "language_biased", "vision_biased"), seeds=2, steps=20):
    """Records as the trainer keeps them; margins grow with the step, q falls."""
    rows = []
    for seed in range(seeds):
        for step in range(steps):
            for id in "ab":
                row = {"step": step, "id": id, "variant": "A1", "seed": seed, "loss": 1.0}
                for at, term in enumerate(terms):
                    row[f"{term}_psi_sum"] = (at + 1) * step + seed
                    row[f"{term}_psi_mean"] = step / 10
                    row[f"{term}_gamma"] = 1 / len(terms)
                    if term.endswith("biased"):
                        row[f"{term}_q"] = 0.5 - step / 100
                rows.append(row)
    return pd.DataFrame(rows)


def summary(variants=("base", "dpo", "A1")):
    rows = []
    for at, name in enumerate(variants):
        for metric in ("CB", "LP"):
            rows.append((name, metric, 40.0 + at, 35.0 + at, 45.0 + at))
            rows.append((name, f"{metric} true", 47.0 + at, np.nan, np.nan))
            rows.append((name, f"{metric} false", 33.0 + at, np.nan, np.nan))
    return pd.DataFrame(rows, columns=["variant", "metric", "value", "low", "high"])


def picture(side=8, colour="red"):
    return Image.new("RGB", (side, side), colour)


def everything():
    """Each kind of figure, once."""
    curves = figures.loss_curves([0.1, 0.9], points=50)
    log = pd.DataFrame({"stage": ["vision", "language"] * 5, "step": range(10), "loss": 1.0})
    return {
        "fig3": figures.fig3(curves),
        "fig4": figures.fig4(margin_frame()),
        "training": figures.training_curves(records()),
        "pretraining": figures.pretraining(log),
        "comparison": figures.comparison(summary()),
        "gallery": figures.gallery([(picture(), "a dog")] * 3),
        "masks": figures.masks([("as asked", picture(), "what ?"), ("drop", None, "what ?")]),
    }


# --- Fig. 3 -----------------------------------------------------------------------------------


def test_other_values_of_q_than_the_papers_make_a_figure_of_their_own():
    assert figures.fig3_name([0.9, 0.1, 0.3, 0.5, 0.7]) == "fig3"
    assert figures.fig3_name([0.5, 0.25]) == "fig3-q-0.25-0.5"


def test_a_q_that_is_named_twice_is_drawn_once():
    twice = [0.1, 0.1, 0.1000000001, 0.3]
    assert figures.fig3_name(twice) == "fig3-q-0.1-0.3"
    assert figures.loss_curves(twice, points=9)["loss"].value_counts()["NaPO, q = 0.1"] == 9


def test_each_line_of_fig3_stands_out_from_white_paper():
    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    lines = figures.fig3(figures.loss_curves(points=9)).axes[0].lines
    for line in lines:  # the least that WCAG 2 asks of graphics
        assert 1.05 / (luminance(to_rgb(line.get_color())) + 0.05) >= 3, line.get_label()
    greys = [luminance(to_rgb(line.get_color())) for line in lines[1:-1]]
    assert greys == sorted(greys)


def test_loss_curves_are_the_papers_formulas():
    curves = figures.loss_curves([0.3], points=99)
    by = {name: part for name, part in curves.groupby("loss")}
    x = by["MAE"]["x"].to_numpy()
    np.testing.assert_allclose(by["BCE (DPO)"]["value"], -np.log(x), rtol=1e-9)
    np.testing.assert_allclose(by["NaPO, q = 0.3"]["value"], (1 - x**0.3) / 0.3, rtol=1e-9)
    np.testing.assert_allclose(by["MAE"]["value"], 1 - x, rtol=1e-9)
    assert list(curves) == ["loss", "x", "value", "weight"]


def test_gradient_weights_are_the_slopes_of_the_losses_in_psi():
    # By hand: BCE 1 - x, NaPO x^q (1 - x), MAE x (1 - x).
    curves = figures.loss_curves([0.3], points=99)
    by = {name: part for name, part in curves.groupby("loss")}
    x = by["MAE"]["x"].to_numpy()
    np.testing.assert_allclose(by["BCE (DPO)"]["weight"], 1 - x, rtol=1e-9)
    np.testing.assert_allclose(by["NaPO, q = 0.3"]["weight"], x**0.3 * (1 - x), rtol=1e-9)
    np.testing.assert_allclose(by["MAE"]["weight"], x * (1 - x), rtol=1e-9)


def test_fig3_has_a_line_for_each_loss_in_both_panels_in_the_order_of_the_legend():
    figure = figures.fig3(figures.loss_curves([0.9, 0.1], points=20))
    left, right = figure.axes
    wanted = ["BCE (DPO)", "NaPO, $q$ = 0.1", "NaPO, $q$ = 0.9", "MAE"]
    assert [line.get_label() for line in left.lines] == wanted
    assert [line.get_label() for line in right.lines] == wanted
    heights = [line.get_ydata()[1] for line in left.lines]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("q", [0.0, -0.1, 1.5, float("nan")])
def test_a_q_that_is_not_one_is_refused(q):
    with pytest.raises(NapoError, match="lies in \\(0, 1\\]"):
        figures.loss_curves([0.5, q])


# --- Fig. 4 -----------------------------------------------------------------------------------


def test_fig4_has_sums_above_averages_and_language_left_of_vision():
    figure = figures.fig4(margin_frame())
    panels = figure.axes
    assert len(panels) == 4
    assert "Language-biased" in panels[0].get_title() and "Vision-biased" in panels[1].get_title()
    assert "average" in panels[2].get_xlabel() and "average" not in panels[0].get_xlabel()


def test_fig4_tells_the_numbers_that_separation_computes():
    frame = margin_frame()
    facts = separation(frame).query("kind == 'vision_biased' and statistic == 'mean'")
    kept, without = facts.sort_values("equal_kept", ascending=False).to_dict("records")
    said = [text.get_text() for text in figures.fig4(frame).axes[3].texts]
    area = "AUROC {auroc:.2f} [{auroc_low:.2f}, {auroc_high:.2f}]"
    assert said[0] == area.format(**kept)
    assert said[1] == "30 noise-free, 30 noise"
    assert said[2] == "without the 4 equal to $y_w$: " + area.format(**without)


def test_fig4_draws_every_decided_response_in_its_rug_and_its_median():
    frame = margin_frame(unsure=5)
    ax = figures.fig4(frame).axes[0]
    mine = frame[frame["kind"] == "language_biased"]
    rugs = [line for line in ax.lines if line.get_marker() == "|"]
    for rug, label in zip(rugs, ("biased", "unbiased"), strict=True):
        values = mine.loc[mine["label"] == label, "margin_sum"]
        np.testing.assert_array_equal(rug.get_xdata(), values)
        assert any(list(line.get_xdata()) == [values.median()] * 2 for line in ax.lines)


@pytest.mark.parametrize("spread", [1e-6, 0.05, 0.8, 5.0])
def test_fig4_draws_a_density_that_is_seen_however_narrow_one_side_is(spread):
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


def test_fig4_shows_questions_where_groups_are_known_and_says_so():
    figure = figures.fig4(margin_frame(groups=("question", "description", "no-image"), n=12))
    assert "questions" in figure.axes[0].get_title()
    assert "12 noise-free, 12 noise" in texts(figure)


@pytest.mark.parametrize("label", ["biased", "unbiased", "unsure"])
def test_fig4_is_drawn_of_one_label_only_and_of_none(label):
    figure = figures.fig4(margin_frame(equal=0, n=6).assign(label=label))
    wanted = "nothing labelled" if label == "unsure" else "AUROC not defined"
    assert wanted in texts(figure)


def test_fig4_is_drawn_of_margins_that_are_all_the_same():
    frame = margin_frame(n=6).assign(margin_sum=0.0, margin_mean=0.0)
    assert any(said.startswith("AUROC 0.50") for said in texts(figures.fig4(frame)))


# --- training ---------------------------------------------------------------------------------


def lines(ax):
    return {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}


def test_weights_that_only_say_which_term_was_drawn_are_said_not_drawn():
    frame = records(seeds=1)
    terms = [name for name in frame if name.endswith("_gamma")]
    frame[terms] = 0.0
    for at, name in enumerate(terms):
        frame.loc[frame["step"] % len(terms) == at, name] = 1.0
    panel = figures.training_curves(frame).axes[-1]
    assert panel.get_title() == r"weight $\gamma$" and not panel.lines
    assert [text.get_text() for text in panel.texts] == ["one term a step,\nat random"]
    frame[terms] = 1.0  # a plain sum is drawn
    assert figures.training_curves(frame).axes[-1].lines


def test_training_curves_show_means_over_seeds_and_a_band_between_them():
    figure = figures.training_curves(records(seeds=2))
    margin = figure.axes[0]
    drawn = lines(margin)
    assert list(drawn) == ["rejected", "language-biased", "vision-biased"]
    np.testing.assert_allclose(drawn["vision-biased"].get_ydata(), 3 * np.arange(20) + 0.5)
    (band, *_) = margin.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == 0 and heights.max() == 20  # seeds 0 and 1 of the rejected pair


def test_q_is_drawn_for_napo_terms_only_and_gamma_where_there_is_something_to_weigh():
    titles = [ax.get_title() for ax in figures.training_curves(records()).axes]
    assert len(titles) == 4 and "robustness $q$" in titles
    q = figures.training_curves(records()).axes[titles.index("robustness $q$")]
    assert list(lines(q)) == ["language-biased", "vision-biased"]
    alone = figures.training_curves(records(("rejected",))).axes
    assert [ax.get_title() for ax in alone] == titles[:2]


def test_one_seed_has_no_band():
    assert not figures.training_curves(records(seeds=1)).axes[0].collections


def test_a_long_run_is_drawn_in_blocks_and_the_axis_says_so():
    figure = figures.training_curves(records(("rejected",), seeds=1, steps=120))
    (line,) = lines(figure.axes[0]).values()
    assert len(line.get_xdata()) == 60
    np.testing.assert_allclose(line.get_ydata()[:2], [0.5, 2.5])
    assert figure.axes[0].get_xlabel() == "step (means of up to 2)"


def test_pretraining_has_a_panel_for_each_stage():
    log = pd.DataFrame({"stage": ["vision"] * 3 + ["language"] * 4, "step": range(7), "loss": 2.0})
    figure = figures.pretraining(log)
    assert [ax.get_title() for ax in figure.axes] == ["vision stage", "language stage"]
    assert [len(ax.lines[0].get_xdata()) for ax in figure.axes] == [3, 4]


# --- results ----------------------------------------------------------------------------------


def test_the_comparison_has_the_base_as_a_dashed_line_and_halves_as_marks():
    figure = figures.comparison(summary())
    assert [ax.get_title() for ax in figure.axes] == ["CB", "LP"]
    lp = figure.axes[1]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["base", "dpo", "A1"]
    dashed = [line for line in lp.lines if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in dashed] == [[40.0, 40.0]]
    dots = [line.get_xdata()[0] for line in lp.lines if line.get_marker() == "o"]
    assert dots == [40.0, 41.0, 42.0]
    marks = [line.get_xdata()[0] for line in lp.lines if line.get_marker() == 5]
    assert marks == [47.0, 48.0, 49.0]


def test_variants_come_in_the_order_of_the_tables_and_unknown_ones_last():
    figure = figures.comparison(summary(("zeta", "VB1", "A1-lora", "dpo", "base")))
    shown = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert shown == ["base", "dpo", "A1-lora", "VB1", "zeta"]


def test_what_did_not_run_is_said_and_not_drawn():
    frame = summary()
    missing = (frame["variant"] == "A1") & (frame["metric"] == "LP")
    assert "not run" in texts(figures.comparison(frame[~missing]))
    assert "not run" not in texts(figures.comparison(frame))


def test_a_variant_has_one_colour_with_and_without_lora():
    colours = [figures.variant_colour(name) for name in ("A1", "A1-lora", "dpo")]
    assert colours[0] == colours[1] != colours[2]
    colours = [entry.colour for entry in VARIANTS.values() if entry.tables]
    assert all(colours) and len(set(colours)) == len(colours)


# --- pictures with text -----------------------------------------------------------------------


def test_a_gallery_has_a_picture_for_each_item_and_its_words_beneath():
    figure = figures.gallery([(picture(), f"Q: number {at}\nA: yes") for at in range(5)], columns=2)
    assert len(figure.axes) == 5
    assert texts(figure)[:2] == ["Q: number 0", "A: yes"]
    lefts = [round(ax.get_position().x0, 3) for ax in figure.axes]
    assert lefts[0] == lefts[2] == lefts[4] != lefts[1]


def test_no_words_reach_into_a_picture_or_another_column():
    long = "one two three four five six seven " * 12
    items = [("a title that goes on and on and on", picture(), long)] * 6
    figure = figures.masks(items, columns=3)
    with figures.style():
        figure.draw_without_rendering()
        pictures = [ax.get_window_extent() for ax in figure.axes]
        words = [text.get_window_extent() for text in figure.texts]
    assert not any(box.overlaps(word) for box in pictures for word in words)
    assert not any(a.overlaps(b) for at, a in enumerate(words) for b in words[:at] if a.x0 > b.x0)
    assert all(word.x0 >= 0 and word.x1 <= figure.bbox.x1 and word.y0 >= 0 for word in words)


def test_a_missing_image_is_said():
    assert "no image" in texts(figures.masks([("drop", None, "what ?")]))


@pytest.mark.parametrize("text", ["$x^2", r"\frac{1}{2}$$ \alpha", "<b>_{bold}</b> %s {0}"])
def test_markup_is_drawn_as_it_is(text):
    figure = figures.gallery([(picture(), text)], columns=1)
    assert [text_.get_text() for text_ in figure.texts] == [text]
    assert not any(text_.get_parse_math() for text_ in figure.texts)
    assert figure._repr_png_().startswith(b"\x89PNG")


@given(text=st.text(max_size=60))
@settings(max_examples=25, deadline=None)
def test_any_text_is_drawn(text):
    assert figures.gallery([(picture(2), text)])._repr_png_()


@given(text=st.text(alphabet="ab]$ \n\ud800", max_size=300), width=st.floats(0.3, 3))
@settings(max_examples=60, deadline=None)
def test_wrapping_keeps_every_character_but_spaces_until_the_ellipsis(text, width):
    with figures.style():
        made = wrap(text, width)
    kept = "".join("".join(made).split())
    wanted = "".join(text.replace("\ud800", "\ufffd").split())
    assert kept == wanted if "…" not in made else wanted.startswith(kept.removesuffix("…"))
    assert len(made) <= 14


def test_a_word_of_a_million_letters_takes_no_time():
    with figures.style():
        assert wrap("x" * 1_000_000, 1.5)[-1] == "…"


def test_mask_tokens_are_broken_between_and_not_within():
    with figures.style():
        made = wrap("[MASK]" * 9, 1.5)
    assert len(made) > 1 and all(line.strip().count("[MASK]") * 6 == len(line.strip())
                                 for line in made)  # fmt: skip


# --- all figures ------------------------------------------------------------------------------


def test_the_same_data_gives_the_same_bytes_in_every_format(tmp_path):
    for folder in ("one", "two"):
        fig3 = figures.fig3(figures.loss_curves([0.5], points=20))
        figures.save(fig3, tmp_path / folder, "fig3", margin_frame())
        gallery = figures.gallery([(picture(), "$a dog")])
        figures.save(gallery, tmp_path / folder, "gallery", margin_frame(n=5))
    files = sorted((tmp_path / "one").iterdir())
    assert {path.suffix for path in files} == {".pdf", ".svg", ".png", ".csv", ".json"}
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_saved_figures_embed_their_fonts_and_tell_no_date(tmp_path):
    figure = figures.fig3(figures.loss_curves([0.5], points=20))
    paths = figures.save(figure, tmp_path, "fig3", pd.DataFrame({"x": [1]}))
    assert [path.name for path in paths] == ["fig3.pdf", "fig3.svg", "fig3.png", "fig3.csv"]
    pdf, svg = paths[0].read_bytes(), paths[1].read_text()
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf
    assert "<dc:date>" not in svg and "<text" not in svg
    with Image.open(paths[2]) as image:
        assert round(image.width / image.info["dpi"][0], 1) == 6.9


def test_the_csv_beside_a_figure_is_its_data(tmp_path):
    frame = margin_frame()
    *_, path = figures.save(figures.masks([("drop", None, "what ?")]), tmp_path, "fig4", frame)
    read = pd.read_csv(path, keep_default_na=False)
    np.testing.assert_array_equal(read["margin_sum"], frame["margin_sum"])


def test_no_figure_has_words_outside_its_page_or_over_each_other():
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


def test_a_users_own_style_changes_no_figure_and_drawing_leaves_it_alone():
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


def test_drawing_leaves_the_data_as_it_was():
    for make, data in (
        (figures.fig4, margin_frame()),
        (figures.training_curves, records()),
        (figures.comparison, summary()),
    ):
        before = data.copy(deep=True)
        make(data)
        pd.testing.assert_frame_equal(data, before)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_gallery_shows_each_of_thirty_hostile_texts_within_its_card(text):
    shown = [(Image.new("RGB", (30, 20), "red"), text), (Image.new("RGB", (30, 20)), "plain")]
    figure = figures.gallery(shown, columns=2)
    assert figure._repr_png_().startswith(b"\x89PNG")
    with quiet_glyphs():
        assert figure.get_tightbbox().x1 <= figure.get_figwidth() + 0.05


@pytest.mark.parametrize("draw", ["fig3", "fig4"])
def test_figures_come_in_a_papers_column_and_page_with_the_same_panels(draw):
    data = figures.loss_curves() if draw == "fig3" else margin_frame()
    panels = []
    for width in (figures.PAGE, figures.COLUMN):
        figure = getattr(figures, draw)(data, width=width)
        assert figure.get_figwidth() == width
        bounds = figure.get_tightbbox()
        assert bounds.x0 > -0.05 and bounds.x1 < width + 0.05  # nothing is cut off
        panels.append([len(ax.lines) for ax in figure.axes])
    assert panels[0] == panels[1]


# --- drawn again from the command line --------------------------------------------------------


def draw_again(root, *arguments):
    command = [sys.executable, "-m", "napo", "figures", *arguments]
    command += ["--profile", "smoke", "--workspace", str(root)]
    return subprocess.run(command, capture_output=True, text=True)


def test_figures_drawn_again_have_the_notebooks_bytes(tmp_path):
    folder, margins, curves = tmp_path / "figures" / "smoke", margin_frame(), figures.loss_curves()
    figures.save(figures.fig3(curves), folder, "fig3", curves)
    figures.save(figures.fig4(margins), folder, "fig4", margins)
    drawn = [path for path in folder.iterdir() if not path.name.endswith("provenance.json")]
    before = {path.name: path.read_bytes() for path in drawn}
    assert len(before) == 8
    done = draw_again(tmp_path)
    assert done.returncode == 0 and not done.stderr, done.stderr
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before == {name: after[name] for name in before}
    assert {"fig3-column.pdf", "fig4-column.svg"} <= after.keys()


def test_figures_cannot_be_drawn_again_from_nothing(tmp_path, capsys):
    from napo.commands.cli import main

    place = ["figures", "--profile", "smoke", "--workspace", str(tmp_path)]
    assert main([*place, "fig4"]) == 1
    assert "fig4.csv is missing; run notebooks/04" in capsys.readouterr().err
    assert main([*place, "fig5"]) == 1
    assert "Unknown figure 'fig5'" in capsys.readouterr().err
    (tmp_path / "figures" / "smoke").mkdir(parents=True)
    for content in (b"", b"id,kind\na,b\n", b"\xff\xfe", b"id,margin_sum\na,x\n"):
        (tmp_path / "figures" / "smoke" / "fig4.csv").write_bytes(content)
        assert main([*place, "fig4"]) == 1
        assert "is not a table of margins" in capsys.readouterr().err
