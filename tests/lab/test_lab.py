import json
import re
import shutil
import sys
import time
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from hostile import HOSTILE
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from results_fixtures import margin_frame

from napo import lab, stages
from napo.errors import NapoError
from napo.lab import html, live, runs, views
from napo.lab.loss import EQ12, curves
from napo.lab.margins import Bars, response_card
from napo.lab.masks import mask_cards
from napo.lab.rows import Rows, row_card
from napo.results import figures
from napo.stages.session import open_session
from napo.workspace.manifests import MANIFEST, finish


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A smoke workspace with rows, labels, two runs, and results of base and both."""
    made = open_session("smoke", str(tmp_path_factory.mktemp("explore")))
    stages.make_rows(made)
    stages.build_rows(made)
    stages.score_reference(made)
    stages.annotate(made)
    stages.make_benchmarks(made)
    stages.evaluate(made, "base")
    for variant in ("A1", "dpo"):
        stages.train(made, variant, 0)
        stages.evaluate(made, variant)
    return made


EXPLORERS = {
    "rows": lab.rows,
    "margins": lambda made: lab.margins(stages.margins(made), stages.biased_rows(made)),
    "loss": lambda made: lab.loss(),
    "training": lab.training,
    "masks": lab.masks,
    "answers": lab.answers,
}


class Tags(HTMLParser):
    """Tags with their attributes, and the text between them, as a browser would take them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def text_of(page):
    return Tags(re.sub("<style>.*?</style>", "", page, flags=re.S)).text


def row(id="a", text="the cat is black .", chosen="the cat is red .", question="what colour ?"):
    return {
        "id": id,
        "image": Image.new("RGB", (48, 32), "red"),
        "question": question,
        "chosen": chosen,
        "rejected": text,
        "language_biased": text,
        "vision_biased": text,
    }


# --- all explorers ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_static_picture_is_there_with_its_words_and_comes_within_three_seconds(name, smoke):
    EXPLORERS[name](smoke)  # imports and caches of the process
    start = time.perf_counter()
    made = EXPLORERS[name](smoke)
    assert time.perf_counter() - start < 3
    pictures = Tags(made.static).of("img")
    assert pictures and all(tag["alt"].strip() for tag in pictures)
    assert all(tag["src"].startswith("data:image/") for tag in pictures)
    assert 'class="napo-static"' in made.static


@pytest.mark.parametrize("name", EXPLORERS)
def test_a_cell_shows_the_static_picture_first_and_then_the_widgets(name, smoke, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    made = EXPLORERS[name](smoke)
    made._ipython_display_()
    static, view = shown
    assert static["text/html"] == made.static and "text/html" not in view
    assert view["application/vnd.jupyter.widget-view+json"]["model_id"] == made.model_id
    assert static["text/plain"] == view["text/plain"] == repr(made)


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_widgets_are_empty_and_hidden_until_a_front_end_asks(name, smoke, monkeypatch):
    made = EXPLORERS[name](smoke)
    said = []
    monkeypatch.setattr(made.alive, "send", said.append)
    assert made.layout.display == "none" and not made.view.value
    assert made.alive.mark in made.static
    made.alive._handle_custom_msg({"ask": "alive"}, [])
    assert made.layout.display is None and said == [{"alive": True}]
    filled = made.children[-1] is made.alive and (made.view.value or made.heading.value)
    assert filled


@pytest.mark.parametrize("name", EXPLORERS)
def test_nothing_leaves_the_page_and_nothing_is_written(name, smoke):
    files = {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")}
    made = EXPLORERS[name](smoke)
    made.wake()
    for page in (made.static, made.view.value, live.Alive._esm, Bars._esm):
        left = re.sub(r"base64,[\w+/=]+", "", str(page))  # a picture's bytes may spell anything
        left = left.replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "http" not in left and "import " not in left
    assert {path: path.stat().st_mtime_ns for path in smoke.workspace.root.rglob("*")} == files


def test_waking_again_fills_nothing_again(smoke, monkeypatch):
    made = lab.rows(smoke)
    made.wake()
    monkeypatch.setattr(made, "_fill", lambda: pytest.fail("filled twice"))
    made.wake()


def test_a_saved_notebook_holds_the_static_picture_and_html_without_a_kernel_shows_it():
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    source = (
        "from PIL import Image\n"
        "from napo.lab.rows import Rows\n"
        "row = dict.fromkeys(('chosen', 'rejected', 'language_biased', 'vision_biased'), 'yes')\n"
        "Rows([{**row, 'id': 'r1', 'image': Image.new('RGB', (9, 9)), 'question': 'why ?'}])"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(book, timeout=120).execute()
    pages = [out["data"].get("text/html", "") for out in book.cells[0].outputs if "data" in out]
    assert any('class="napo-static"' in page and "<img" in page for page in pages)
    # No front end asked: the pictures are in the notebook once, not in the widgets' state too.
    assert "data:image" not in json.dumps(book.metadata.get("widgets", {}))
    page, _ = HTMLExporter().from_notebook_node(book)
    assert 'class="napo-static"' in page and 'alt="The picture of row r1"' in page


# --- texts ------------------------------------------------------------------------------------

HARMLESS = {
    *("style", "div", "img", "small", "mark", "table", "tbody", "tr", "th", "td"),
}


def assert_harmless(page):
    """Only our own tags, without handlers, and no character that a terminal or browser obeys."""
    found = Tags(page)
    assert {tag for tag, _ in found.tags} <= HARMLESS
    assert not any(name.startswith("on") for _, tag in found.tags for name in tag)
    assert all(tag["src"].startswith("data:image/") for tag in found.of("img"))
    assert not re.search("[\0\x07\x1b\x7f]", page)
    page.encode()  # what the browser is sent: no lone surrogates
    opened = [tag for tag, _ in found.tags if tag != "img"]
    assert len(opened) == len(re.findall("</[a-z]+>", page))  # none left open by a text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_shown_as_they_are_in_every_card(text):
    entry = {"label": text, "kind": "language_biased", "equal_to_chosen": True}
    entry |= {"margin_sum": 1.0, "margin_mean": 0.1}
    hostile = row(text, text, f"fine {text}", text)
    page = "".join(
        (
            row_card(hostile),
            response_card(hostile, entry),
            mask_cards([(text, hostile["image"], text), (text, None, text)], 0),
            html.table([(text, html.against("fine", text))]),
            html.remark(text),
            html.picture(None, text),
            html.drawing(b"", text),
        )
    )
    assert_harmless(page)
    shown = "".join(text_of(page).split())
    for word in text.split():
        assert re.sub("[\0\x07\x1b\x7f\ud800]", "\ufffd", word) in shown


@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[5], HOSTILE[23], HOSTILE[16]])
def test_hostile_rows_are_harmless_in_the_gallery_and_behind_a_bar(text):
    data = [row(f"{at}{text}", text) for at in range(8)]
    made = Rows(data)
    made.wake()
    made.search.value = text[:9]
    assert_harmless(made.static)
    assert_harmless(made.view.value)
    frame = margin_frame(n=3, equal=0)
    named = frame.assign(id=[data[at % 8]["id"] for at in range(len(frame))])
    tool = lab.margins(named, data)
    tool.wake()
    tool.chart.chosen = 0
    assert_harmless(tool.view.value + tool.heading.value)


def test_hostile_answers_and_folder_names_are_harmless(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    folder = root / "data" / "smoke" / "results"
    named = folder / "<img src=x onerror=alert(1)>"
    shutil.copytree(folder / "base", named)
    path = named / "vlind.answers.jsonl"
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    for at, text in enumerate(HOSTILE):
        entries[at]["answer"] = text
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (named / MANIFEST).unlink()
    finish(named)
    tool = lab.answers(open_session("smoke", str(root)), ["base", named.name])
    tool.wake()
    for _ in HOSTILE:
        assert_harmless(tool.view.value)
        assert named.name in text_of(tool.view.value)
        tool.pages.on.click()


def test_long_words_wrap_and_texts_that_run_the_other_way_stay_in_their_box():
    page = row_card(row(text="W" * 5000))
    boxes = [tag for tag in Tags(page).of("div") if tag.get("class") == "napo-words"]
    assert len(boxes) == 5 and all(tag["dir"] == "auto" for tag in boxes)
    look = re.search(r"\.napo-words \{(.*?)\}", html.STYLE, re.S)[1]
    for rule in ("overflow-wrap: anywhere", "max-height", "overflow-y: auto", "isolate"):
        assert rule in look
    assert set(re.findall(r"color: var\((--jp[^,]*)", html.STYLE)) and "--jp-layout" in look


def test_an_icon_keeps_its_pixels_and_a_photograph_is_made_small():
    icon = Tags(html.picture(Image.new("RGB", (48, 24)), "x")).of("img")[0]
    assert (icon["width"], icon["height"]) == ("200", "100") and "napo-icon" in icon["class"]
    grain = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    photo = html.picture(Image.fromarray(grain), "x")
    assert "napo-icon" not in photo and len(photo) < 150_000


# --- rows -------------------------------------------------------------------------------------


def test_the_gallery_shows_each_row_with_four_responses_marked_against_the_chosen_one():
    made = Rows([row("r1")])
    said = text_of(made.static)
    for part in ("r1", "what colour ?", "Chosen", "Rejected", "Language-biased", "Vision-biased"):
        assert part in said
    assert made.static.count("<mark>black</mark>") == 3 and "<mark>red" not in made.static


def test_a_response_that_equals_the_chosen_one_is_said():
    assert text_of(Rows([row(text="the cat is red . ")]).static).count("equals the chosen") == 3


def ids(page):
    return re.findall(r"<small>row (.*?)</small>", page)


def test_pages_turn_and_stop_at_the_ends():
    made = Rows([row(str(at)) for at in range(10)])
    made.wake()
    assert ids(made.view.value) == ids(made.static) == ["0", "1", "2", "3"]
    made.pages.on.click()
    made.pages.on.click()
    assert ids(made.view.value) == ["8", "9"] and made.pages.on.disabled
    assert made.pages.place.value == "rows 9 to 10 of 10"
    made.pages.page = 99
    assert made.pages.page == 2
    made.pages.page = -1
    assert ids(made.view.value) == ["0", "1", "2", "3"] and made.pages.back.disabled


def test_pages_of_one_thing_count_it_alone():
    pages = live.Pages(1, "items")
    assert pages.place.value == "no items"
    pages.restart(7)
    pages.page = 2
    assert pages.place.value == "item 3 of 7"


def test_a_search_finds_in_questions_and_responses_whatever_the_case():
    data = [row(str(at), question="a DOG ?" if at % 3 == 0 else "a cat ?") for at in range(10)]
    data[4]["vision_biased"] = "There is a Dog."
    made = Rows(data)
    made.wake()
    made.pages.page = 2
    made.search.value = "dog"
    assert ids(made.view.value) == ["0", "3", "4", "6"] and made.pages.page == 0
    made.search.value = "no such thing"
    assert ids(made.view.value) == [] and made.pages.place.value == "no rows"
    made.search.value = ""
    assert made.pages.count == 10


def test_a_row_is_made_into_a_card_once():
    made = Rows([row(str(at)) for at in range(5)])
    made.wake()
    made.pages.page = 1
    made.pages.page = 0
    assert made.card.cache_info().misses == 5


def test_a_row_whose_picture_breaks_is_said_and_the_rest_can_still_be_seen():
    class Data(list):
        def __getitem__(self, at):
            if at == 4:
                raise NapoError("Row 4: its image cannot be used.")
            return super().__getitem__(at)

    made = Rows(Data(row(str(at)) for at in range(9)))
    made.wake()
    made.pages.page = 1
    assert "Row 4: its image" in made.said.value and made.view.value == ""
    made.pages.page = 2
    assert ids(made.view.value) == ["8"] and made.said.value == ""


# --- margins ----------------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(-50, 50), min_size=1, max_size=80),
    bins=st.integers(1, 40),
)
@settings(max_examples=120, deadline=None)
def test_bins_hold_every_value_once_and_as_many_as_the_histogram_counts(values, bins):
    edges = np.linspace(min(values), max(values) + 1e-6, bins + 1)
    found = lab.rows_per_bin(values, edges)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(values)))
    assert [len(part) for part in found] == np.histogram(values, edges)[0].tolist()


def test_the_largest_value_on_the_last_edge_is_in_the_last_bin():
    assert [part.tolist() for part in lab.rows_per_bin([0, 1, 2], [0, 1, 2])] == [[0], [1, 2]]


@pytest.fixture(scope="module")
def drawn():
    """Margins with groups, questions and others, unsure ones too; their figure and bars."""
    frame = margin_frame(groups=("question", "description", "no-image"), n=12, unsure=2)
    figure = figures.fig4(frame)
    return frame, figure, lab.bars(frame, figure)


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
    found = lab.bars(frame, figures.fig4(frame))
    assert len({at for bar in found for at in bar.rows}) == (24 if label == "biased" else 0)


def test_margins_that_are_all_the_same_stand_in_bars_side_by_side():
    frame = margin_frame(n=6).assign(margin_sum=0.0, margin_mean=0.0)
    found = lab.bars(frame, figures.fig4(frame))
    assert len(found) == 8 and all(len(bar.rows) == 6 for bar in found)


def test_choosing_a_bar_shows_exactly_its_rows(smoke):
    frame, data = stages.margins(smoke), stages.biased_rows(smoke)
    tool = lab.margins(frame, data)
    tool.wake()
    assert "Choose a bar" in tool.heading.value and tool.view.value == ""
    for at, bar in enumerate(tool.bars):
        tool.chart.chosen = at
        shown = []
        for page in range(-(-len(bar.rows) // 6)):
            tool.pages.page = page
            shown += ids(tool.view.value)
        assert shown == [frame["id"].iloc[at] for at in bar.rows]
        assert escape(str(bar)) in tool.heading.value
        assert (tool.pages.layout.display == "none") == (len(bar.rows) <= 6)
    tool.chart.chosen = -1
    assert "Choose a bar" in tool.heading.value and tool.view.value == ""


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
    assert tool.chart.size == [1035, 615] and tool.chart.picture.startswith("data:image/png")


def test_a_card_behind_a_bar_tells_label_margins_and_both_responses():
    entry = {"label": "unbiased", "kind": "vision_biased", "equal_to_chosen": False}
    said = text_of(response_card(row("r"), entry | {"margin_sum": 2.5, "margin_mean": 0.25}))
    assert "noise (labelled unbiased); margin 2.50, per token 0.250" in said
    assert "Chosenthe cat is red ." in said and "Vision-biasedthe cat is black ." in said


def test_a_figure_that_is_drawn_already_is_not_drawn_again(drawn, monkeypatch):
    frame, figure, _ = drawn
    module = sys.modules["napo.lab.margins"]  # the package's attribute is the function
    monkeypatch.setattr(module, "fig4", lambda _: pytest.fail("drawn again"))
    lab.margins(frame, [row(id) for id in dict.fromkeys(frame["id"])], figure)


def test_margins_of_other_rows_are_refused_by_name():
    with pytest.raises(NapoError, match=r"30 responses of the margins .*\(0, 1, 10, 11, 12 \.\.\."):
        lab.margins(margin_frame(n=15), [row("z")])


# --- loss -------------------------------------------------------------------------------------


def test_curves_are_those_of_fig3_for_a_fixed_q():
    mine, papers = curves(0.3, 0.5, 0.1, "probability", 99), figures.loss_curves([0.3], 99)
    both = [frame[frame["loss"] != EQ12].reset_index(drop=True) for frame in (mine, papers)]
    np.testing.assert_allclose(both[0][["x", "value", "weight"]], both[1][["x", "value", "weight"]])
    assert both[0]["loss"].tolist() == both[1]["loss"].tolist()


def test_q_of_eq_12_falls_with_the_margin_and_carries_no_gradient():
    # By hand: q = 1 - sigmoid(alpha psi), weight x^q (1 - x) with q held.
    part = curves(0.5, 0.5, 0.1).query("loss == @EQ12")
    psi = 0.1 * part["x"].to_numpy()
    q = np.clip(1 - 1 / (1 + np.exp(-0.5 * psi)), 0.01, 1)
    x = 1 / (1 + np.exp(-psi))
    np.testing.assert_allclose(part["q"], q, rtol=1e-6)
    np.testing.assert_allclose(part["weight"], x**q * (1 - x), rtol=1e-6)


def test_beta_scales_the_margins_axis_and_leaves_the_probability_alone():
    one, two = curves(0.5, 0.5, 0.1), curves(0.5, 0.5, 0.2)
    napo = "NaPO, q = 0.5"
    a, b = (frame[frame["loss"] == napo].set_index("x")["value"] for frame in (one, two))
    np.testing.assert_allclose(a[50.0], b[25.0])
    probability = [curves(0.5, 0.5, beta, "probability") for beta in (0.1, 0.2)]
    assert probability[0].equals(probability[1])


@pytest.mark.parametrize(
    ("slider", "value"), [("q", 0.9), ("alpha", 0.01), ("beta", 1.0), ("over", "probability")]
)
def test_each_slider_draws_the_figure_anew(slider, value):
    made = lab.loss()
    made.wake()
    before = made.view.value
    getattr(made, slider).value = value
    after = made.view.value
    assert after != before and Tags(after).of("img")[0]["alt"] != Tags(before).of("img")[0]["alt"]


# --- training ---------------------------------------------------------------------------------


def test_training_lists_the_finished_runs_in_the_profiles_order_and_draws_those_named(smoke):
    made = lab.training(smoke, runs="A1")
    assert made.runs.options == ("dpo/seed-0", "A1/seed-0") and made.runs.value == ("A1/seed-0",)
    assert "steps of A1/seed-0" in Tags(made.static).of("img")[0]["alt"]
    made.wake()
    made.runs.value = ("dpo/seed-0", "A1/seed-0")
    assert "of dpo/seed-0, A1/seed-0" in Tags(made.view.value).of("img")[0]["alt"]
    made.runs.value = ()
    assert "Choose a run" in made.view.value


def test_records_are_read_once_a_run_and_a_set_of_runs_is_drawn_once(smoke):
    made = lab.training(smoke, runs=["dpo"])
    made.wake()
    made.runs.value = ("dpo/seed-0", "A1/seed-0")
    made.runs.value = ("dpo/seed-0",)
    assert made._steps.cache_info().misses == 2 and made._draw.cache_info().misses == 2


def test_a_run_of_lora_stays_apart_from_the_full_one(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root / "data" / "smoke" / "runs", root / "data/smoke/runs")
    runs = root / "data" / "smoke" / "runs"
    shutil.copytree(runs / "A1", runs / "A1-lora")
    path = runs / "A1-lora" / "seed-0" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tune": "lora"}))
    made = lab.training(open_session("smoke", str(root)), ["A1/seed-0", "A1-lora"])
    assert made._steps("A1-lora/seed-0")["variant"].unique().tolist() == ["A1-lora"]
    assert len(made.runs.options) == 3


def test_unknown_runs_are_refused_with_the_nearest_and_unfinished_ones_are_not_listed(
    smoke, tmp_path
):
    with pytest.raises(NapoError, match=r"Unknown run 'A1/seed-1'. Did you mean 'A1/seed-0'"):
        lab.training(smoke, ["A1/seed-1"])
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root / "data" / "smoke" / "runs", root / "data/smoke/runs")
    (root / "data" / "smoke" / "runs" / "A1" / "seed-0" / MANIFEST).unlink()
    assert lab.training(open_session("smoke", str(root))).runs.options == ("dpo/seed-0",)


def test_a_variant_means_its_full_runs_and_where_there_are_none_those_of_lora():
    there = ["base", "dpo-lora/seed-0", "A1/seed-0", "A1/seed-1", "A1-lora/seed-0", "A1-sft/seed-0"]
    assert runs.chosen(["A1"], there) == ("A1/seed-0", "A1/seed-1")
    assert runs.chosen(["dpo", "base", "A1-lora"], there) == (
        *("dpo-lora/seed-0", "base", "A1-lora/seed-0"),
    )


# --- masks ------------------------------------------------------------------------------------


def test_the_slider_shows_any_row_under_each_mask(smoke):
    made = lab.masks(smoke)
    made.wake()
    assert made.row.max == 63 and made.view.value in made.static
    for number in (63, 5):
        made.row.value = number
        seen = views.mask_examples(smoke, number)
        assert text_of(made.view.value).count("(empty)") == 0  # a bare picture has no box of text
        said = text_of(made.view.value)
        assert all(title in said for title, _, _ in seen)
        assert "".join(seen[1][2].split()) in "".join(said.split())
        assert f'alt="Row {number}, the picture"' in made.view.value
    assert made.cards.cache_info().misses == 3


def test_rows_of_masks_are_the_rows_of_the_source_by_number(smoke):
    from napo.data import sources

    asked = [entry["question"] for entry in sources.texts(stages.source_folder(smoke))]
    for number in (0, 30, 63):  # of three shards
        assert views.mask_examples(smoke, number)[1][2] == asked[number]
    with pytest.raises(NapoError, match="has no row number 64"):
        views.mask_examples(smoke, 64)


# --- answers ----------------------------------------------------------------------------------


def stored(smoke, run, name):
    path = smoke.workspace.result(run) / f"{name}.answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_first_item_is_one_that_the_runs_answer_differently(smoke):
    made = lab.answers(smoke)
    assert made.runs.value == ("base", "dpo/seed-0", "A1/seed-0") and made.differing.value
    said = "".join(text_of(made.static).split())
    first = made._found[0]
    answers = [stored(smoke, run, "vlind")[first]["answer"] for run in made.runs.value]
    assert len(set(answers)) > 1
    for run, answer in zip(made.runs.value, answers, strict=True):
        assert run + "".join(answer.split()) in said
    assert f"vlind,item{stored(smoke, 'base', 'vlind')[first]['id']}" in said


def test_one_run_has_its_picture_question_and_answer(smoke):
    made = lab.answers(smoke, ["base"])
    assert not made.differing.value
    said = "".join(text_of(made.static).split())
    assert "vlind,item0/a1" in said
    assert "base" + "".join(stored(smoke, "base", "vlind")[0]["answer"].split()) in said


@pytest.mark.parametrize("name", ["vlind", "object_halbench", "amber", "mmhal"])
def test_every_benchmark_shows_its_items(smoke, name):
    made = lab.answers(smoke, ["base"])
    made.wake()
    made.benchmark.value = name
    entries = stored(smoke, "base", name)
    assert made.pages.count == len(entries)
    made.pages.page = len(entries) - 1
    assert f"item {entries[-1]['id']}" in text_of(made.view.value)
    assert "".join(entries[-1]["answer"].split()) in "".join(text_of(made.view.value).split())


def test_only_items_whose_answers_differ_are_left_when_asked_for(smoke):
    made = lab.answers(smoke)
    made.wake()
    made.differing.value = False
    assert made.pages.count == len(stored(smoke, "base", "vlind"))
    made.differing.value = True
    columns = [[entry["answer"].strip() for entry in stored(smoke, run, "vlind")]
               for run in made.runs.value]  # fmt: skip
    wanted = [at for at, told in enumerate(zip(*columns, strict=True)) if len(set(told)) > 1]
    assert made._found == wanted and made.pages.count == len(wanted)
    made.runs.value = ("base",)
    assert made.pages.count == 0 and "No item" in made.view.value
    made.differing.value = False
    made.search.value = "0/a2"
    assert made._found[0] == 1
    made.runs.value = ()
    assert "Choose a run" in made.view.value


def test_a_benchmark_and_a_runs_answers_are_read_once(smoke):
    made = lab.answers(smoke)
    made.wake()
    made.pages.page = 3
    made.search.value = "true"
    made.differing.value = True
    assert made.requests.cache_info().misses == 1 and made.told.cache_info().misses == 3


def test_a_run_that_was_not_asked_a_benchmark_says_so(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    folder = root / "data" / "smoke" / "results" / "base"
    (folder / "amber.answers.jsonl").unlink()
    (folder / MANIFEST).unlink()
    finish(folder)
    made = lab.answers(open_session("smoke", str(root)), ["dpo", "base"])
    made.wake()
    made.benchmark.value = "amber"
    assert "base(not asked)" in text_of(made.view.value)


def test_answers_to_other_questions_are_said_in_the_place_of_the_item(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    path = root / "data" / "smoke" / "results" / "base" / "mmhal.answers.jsonl"
    path.write_text(path.read_text().replace('"id": "0"', '"id": "x"'))
    (path.parent / MANIFEST).unlink()
    finish(path.parent)
    made = lab.answers(open_session("smoke", str(root)), ["base"])
    made.wake()
    made.benchmark.value = "mmhal"
    assert "holds answers to other questions" in made.said.value and made.view.value == ""
    made.benchmark.value = "vlind"
    assert made.said.value == "" and made.view.value


# --- missing inputs ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("rows", r"rows is not there or not finished; run notebooks/01_build_biased_data"),
        ("training", r"runs holds no finished run; run notebooks/05_train.ipynb first"),
        ("masks", r"source holds no .parquet or .jsonl file"),
        ("answers", r"results holds no results; run notebooks/06_evaluate.ipynb first"),
    ],
)
def test_a_missing_input_is_one_sentence_that_names_the_notebook(tmp_path, name, sentence):
    empty = open_session("smoke", str(tmp_path))
    with pytest.raises(NapoError, match=sentence):
        EXPLORERS[name](empty)
