import csv
import multiprocessing

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napo.errors import NapoError
from napo.noise.labels import read_labels, remove_label, store_label
from napo.noise.samples import label_with_oracle, oracle_labels, response_margins, sample, shares
from napo.noise.separation import auroc, describe, headline, separation, separation_to_read, wilson


def row(id, chosen="the cat is red .", lb="the cat is black .", vb="a red cat .", **more):
    scores = {"chosen": (-2.0, 5), "language_biased": (-8.0, 4), "vision_biased": (-6.0, 3)}
    columns = {f"{name}_logp": logp for name, (logp, _) in scores.items()}
    columns |= {f"{name}_tokens": tokens for name, (_, tokens) in scores.items()}
    texts = {"chosen": chosen, "language_biased": lb, "vision_biased": vb}
    return {"id": id, "question": "what colour is the cat ?", **texts, **columns, **more}


def label(id="a", kind="language_biased", value="biased", annotator="ann", **more):
    return {"id": id, "kind": kind, "label": value, "annotator": annotator, **more}


def labels(*rows):
    return pd.DataFrame([{"note": "", "group": "", **one} for one in rows])


def margin_frame(free, noisy, kind="language_biased", group="", equal=0):
    """A frame of margins; the first `equal` noise responses equal the chosen one."""
    values = [*free, *noisy]
    return pd.DataFrame(
        {
            "id": [f"{kind}-{at}" for at in range(len(values))],
            "kind": kind,
            "group": group,
            "label": ["biased"] * len(free) + ["unbiased"] * len(noisy),
            "equal_to_chosen": [False] * len(free) + [at < equal for at in range(len(noisy))],
            "margin_sum": values,
            "margin_mean": [-value for value in values],
        }
    )


# --- the draw ---------------------------------------------------------------------------------


def test_a_sample_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    rows = [row(f"r{at}") for at in range(300)]
    first = sample(rows, 100, seed=1)
    assert first == sample(rows[::-1], 100, seed=1)
    assert first != sample(rows, 100, seed=2)
    assert len(set(first)) == 100


def test_the_first_samples_are_the_same_however_the_rows_are_stored():
    datasets = pytest.importorskip("datasets")
    rows = [row(f"r{at}") for at in range(20)]
    assert sample(datasets.Dataset.from_list(rows), 5, 3) == sample(rows, 5, 3)


def test_more_samples_than_rows_is_an_error_that_names_both_numbers():
    with pytest.raises(NapoError, match="100 samples are wanted of 1 rows"):
        sample([row("a")], 100, 0)


# --- labels on the disk -----------------------------------------------------------------------


def test_a_stored_label_is_on_the_disk_at_once_with_all_columns(tmp_path):
    path = tmp_path / "ann.csv"
    store_label(path, label(note='says, "black"\nnot red'))
    lines = path.read_text().splitlines()
    assert lines[0] == "id,kind,label,annotator,note,group"
    assert lines[1] == 'a,language_biased,biased,ann,"says, ""black"" not red",'
    assert len(lines) == 2


def test_labelling_again_replaces_and_removing_withdraws(tmp_path):
    path = tmp_path / "ann.csv"
    for at in "abc":
        store_label(path, label(at))
    store_label(path, label("b", value="unsure"))
    remove_label(path, "a", "language_biased", "ann")
    remove_label(path, "a", "language_biased", "ann")
    read = read_labels(path)
    assert list(zip(read["id"], read["label"], strict=True)) == [("b", "unsure"), ("c", "biased")]
    assert not list(tmp_path.glob(".*.part*"))


@given(cut=st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_a_line_torn_by_a_crash_is_no_label_and_the_next_one_heals_the_file(cut):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann.csv"
        store_label(path, label("a"))
        store_label(path, label("b"))
        path.write_bytes(path.read_bytes()[:-cut])
        whole = list(read_labels(path)["id"])
        assert whole == ["a", "b"][: 2 if cut == 1 else 1]  # one without its end alone is whole
        store_label(path, label("c"))
        assert list(read_labels(path)["id"]) == [*whole, "c"]


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("last", [True, False])
def test_what_a_spreadsheet_saved_is_read_and_kept(tmp_path, ends, last):
    path = tmp_path / "ann.csv"
    store_label(path, label("a", note="an é"))
    store_label(path, label("b"))
    text = path.read_text(encoding="utf-8").replace("\n", ends)
    path.write_bytes("\ufeff".encode() + (text if last else text[: -len(ends)]).encode())
    assert list(read_labels(path)["id"]) == ["a", "b"]
    store_label(path, label("c"))
    read = read_labels(path)
    assert list(read["id"]) == ["a", "b", "c"] and read["note"][0] == "an é"


def test_a_spreadsheets_empty_rows_are_no_labels(tmp_path):
    path = tmp_path / "ann.csv"
    store_label(path, label("a"))
    path.write_text(path.read_text() + ",,,,,\n")
    assert list(read_labels(path)["id"]) == ["a"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id,kind,label,annotator,date", "the column 'date' is unknown; keep id, kind"),
        ("id,kind,label,annotator,label", "the column 'label' is there twice"),
        ("id;kind;label;annotator", "with commas between them"),
    ],
)
def test_columns_that_would_be_lost_are_refused_and_stay(tmp_path, header, message):
    path = tmp_path / "ann.csv"
    path.write_text(f"{header}\na,language_biased,biased,ann,x\n")
    before = path.read_bytes()
    with pytest.raises(NapoError, match=message):
        read_labels(path)
    with pytest.raises(NapoError, match=message):
        store_label(path, label("b"))
    assert path.read_bytes() == before


def test_a_note_too_long_to_be_read_again_is_refused(tmp_path):
    path = tmp_path / "ann.csv"
    with pytest.raises(NapoError, match="the note has 140000 characters"):
        store_label(path, label(note="n" * 140_000))
    store_label(path, label())
    path.write_text(path.read_text() + "b,language_biased,biased,ann," + "n" * 140_000 + ",\n")
    with pytest.raises(NapoError, match=r"ann\.csv, line 3: field larger"):
        read_labels(path)


def _label_many(path, name):
    for at in range(15):
        store_label(path, label(f"{name}-{at}"))


def test_two_writers_at_once_lose_nothing(tmp_path):
    path = tmp_path / "ann.csv"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_label_many, args=(path, name)) for name in ("x", "y")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_labels(path)) == 30


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("a,language_biased,maybe,ann,,", "Unknown label 'maybe'"),
        ("a,lb,biased,ann,,", "Unknown kind 'lb'"),
        ("a,language_biased,biased,,,", "the annotator is empty"),
        ("a,language_biased,biased", "has 3 fields"),
        ("z,language_biased,biased,ann,,", "labels z .* again"),
        ("a,language_biased,biased,ann,,cats", "Unknown group 'cats'"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path, line, sentence):
    path = tmp_path / "ann.csv"
    store_label(path, label("z"))
    with path.open("a") as file:
        file.write(line + "\n")
    with pytest.raises(NapoError, match=sentence) as told:
        read_labels(path)
    assert "ann.csv, line 3" in str(told.value)


def test_a_missing_file_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(NapoError, match="02_annotate_noise"):
        read_labels(tmp_path / "ann.csv")


def test_labels_saved_by_a_spreadsheet_are_read(tmp_path):
    path = tmp_path / "ann.csv"
    text = "\ufeffid,kind,label,annotator\r\na,vision_biased,unsure,ann\r\n"
    path.write_bytes(text.encode())
    (read,) = read_labels(path).to_dict("records")
    assert read == {**label("a", "vision_biased", "unsure"), "note": "", "group": ""}
    store_label(path, label("b"))
    assert list(read_labels(path)["id"]) == ["a", "b"]


@given(note=st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_any_note_is_kept_on_one_line(note):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ann.csv"
        note = note.encode("utf-8", "ignore").decode()
        store_label(path, label(note=note))
        store_label(path, label("b"))
        kept = read_labels(path)["note"][0]
        assert kept == " ".join(note.replace("\0", "").split())
        with path.open(newline="") as file:
            assert len(list(csv.reader(file))) == 3


# --- truth ------------------------------------------------------------------------------------


def test_the_oracle_writes_what_a_person_would_in_the_order_of_the_samples(tmp_path):
    rows = [row("a"), row("b", lb="the cat is red ."), row("c")]

    def truth(row, kind):
        return ("unbiased" if kind == "vision_biased" else "biased"), "question"

    path = tmp_path / "oracle.csv"
    label_with_oracle(rows, ["c", "b"], truth, path)
    first = path.read_bytes()
    read = read_labels(path)
    assert list(read["id"]) == ["c", "c", "b", "b"]
    assert set(read["annotator"]) == {"oracle"} and set(read["group"]) == {"question"}
    # b's language-biased response equals the chosen one: noise, whatever truth says.
    assert list(read["label"]) == ["biased", "unbiased", "unbiased", "unbiased"]
    label_with_oracle(rows, ["c", "b"], truth, path)
    assert path.read_bytes() == first


def test_shares_of_noise_come_by_kind_and_group_with_their_intervals():
    made = shares(
        labels(
            *(label(f"q{at}", value="unbiased" if at < 3 else "biased", group="question")
              for at in range(10)),
            label("d", value="unbiased", group="description"),
            label("u", value="unsure", group="question"),
            label("n", value="unbiased", group="no-image"),
        )
    )  # fmt: skip
    row = made.loc[("language_biased", "question")]
    assert (row["labelled"], row["noise"], row["unsure"], row["share"]) == (11, 3, 1, 0.3)
    assert (row["low"], row["high"]) == wilson(3, 10)
    assert made.loc[("language_biased", "all"), "noise"] == 4
    assert made.loc[("vision_biased", "all"), "labelled"] == 0


# --- margins ----------------------------------------------------------------------------------


def test_margins_are_chosen_minus_biased_summed_and_per_token():
    made = response_margins([row("a")], labels(label("a"), label("a", "vision_biased", "unbiased")))
    assert list(made["margin_sum"]) == [6.0, 4.0]
    np.testing.assert_allclose(made["margin_mean"], [-0.4 + 2.0, -0.4 + 2.0])
    assert list(made["label"]) == ["biased", "unbiased"]


def test_the_margin_of_a_response_equal_to_the_chosen_one_is_exactly_zero():
    rows = [row("a", lb=" the cat is red . ", language_biased_logp=-2.0000001)]
    (made,) = response_margins(rows, labels(label("a", value="unbiased"))).to_dict("records")
    assert made["equal_to_chosen"] and made["margin_sum"] == made["margin_mean"] == 0.0


def test_margins_of_a_dataset_do_not_decode_its_images():
    datasets = pytest.importorskip("datasets")
    broken = {"bytes": b"no image", "path": None}
    rows = datasets.Dataset.from_list([row("a", image=broken), row("b", image=broken)])
    rows = rows.cast_column("image", datasets.Image())
    made = response_margins(rows, labels(label("b")))
    assert list(made["margin_sum"]) == [6.0]
    assert len(oracle_labels(rows, lambda row, kind: ("biased", "question"))) == 4


def test_labels_of_other_rows_and_rows_without_reference_are_refused_by_name():
    with pytest.raises(NapoError, match="not in the data \\(b\\)"):
        response_margins([row("a")], labels(label("b")))
    bare = {key: value for key, value in row("a").items() if key != "chosen_logp"}
    with pytest.raises(NapoError, match="Row a has no chosen_logp"):
        response_margins([bare], labels(label("a")))


# --- separation -------------------------------------------------------------------------------


def brute_force(free, noisy):
    wins = [(a > b) + 0.5 * (a == b) for a in free for b in noisy]
    return sum(wins) / len(wins)


values = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=12)


@given(free=values, noisy=values)
@settings(max_examples=80, deadline=None)
def test_auroc_is_the_share_of_pairs_that_are_in_order_ties_half(free, noisy):
    assert auroc(free, noisy) == pytest.approx(brute_force(free, noisy))
    assert auroc(noisy, free) == pytest.approx(1 - brute_force(free, noisy))


def test_auroc_agrees_with_scikit_learn_on_many_values():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    free, noisy = rng.normal(1, 1, 700).round(2), rng.normal(0, 1, 300).round(2)
    truth = [1] * 700 + [0] * 300
    assert auroc(free, noisy) == pytest.approx(roc_auc_score(truth, [*free, *noisy]))


def test_auroc_of_an_empty_side_is_missing():
    assert np.isnan(auroc([], [1.0]))


def test_the_bootstrap_interval_is_close_to_hanley_and_mcneils():
    rng = np.random.default_rng(3)
    frame = margin_frame(rng.normal(1, 1, 150), rng.normal(0, 1, 100))
    (row,) = separation(frame).query("equal_kept and statistic == 'sum'").to_dict("records")
    area = row["auroc"]
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + 149 * (q1 - area**2) + 99 * (q2 - area**2)
    expected = 2 * 1.96 * np.sqrt(variance / 150 / 100)
    assert row["auroc_low"] < area < row["auroc_high"]
    assert row["auroc_high"] - row["auroc_low"] == pytest.approx(expected, rel=0.15)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    rng = np.random.default_rng(3)
    frame = margin_frame(rng.normal(1, 1, 30), rng.normal(0, 1, 20))
    one = separation(frame, resamples=200, seed=1)
    pd.testing.assert_frame_equal(one, separation(frame, resamples=200, seed=1))
    assert not one.equals(separation(frame, resamples=200, seed=2))


def test_the_gain_of_a_statistic_is_the_others_with_its_sign_turned():
    rng = np.random.default_rng(4)
    frame = margin_frame(rng.normal(1, 1, 40), rng.normal(0, 1, 30))
    total, mean = separation(frame).query("equal_kept").to_dict("records")
    assert total["gain"] == pytest.approx(-mean["gain"])
    assert total["gain_low"] == pytest.approx(-mean["gain_high"])
    assert total["gain"] == pytest.approx(total["auroc"] - mean["auroc"])


def test_equal_responses_are_counted_and_given_with_and_without():
    frame = margin_frame([2.0] * 8, [0.0] * 6 + [3.0] * 6, equal=6)
    kept, without = separation(frame).query("statistic == 'sum'").to_dict("records")
    assert (kept["n"], kept["noise"], kept["equal"], kept["auroc"]) == (20, 12, 6, 0.5)
    assert (without["n"], without["noise"], without["equal"], without["auroc"]) == (14, 6, 0, 0.0)
    low, high = wilson(12, 20)
    assert (kept["noise_low"], kept["noise_high"]) == (low, high)


def test_a_perfect_separation_has_no_interval_of_width_zero():
    def both(free, noisy):
        frame = margin_frame(free, noisy)
        return separation(frame.assign(margin_mean=frame["margin_sum"]))

    made = both(range(20, 40), range(12))
    assert (made["auroc"] == 1).all() and made[["auroc_low", "auroc_high"]].isna().all(axis=None)
    said = describe(made)
    assert "summed margin 1.000, of" in said and "does not decide" in said
    wrong = describe(both(range(12), range(20, 40)))
    assert "By the sum, noise has the larger margins: the wrong way round" in wrong


def test_wilsons_interval_is_the_textbooks():
    low, high = wilson(1, 10)
    assert (round(low, 4), round(high, 4)) == (0.0179, 0.4042)


def test_unsure_labels_and_questions_that_need_no_image_are_left_out():
    frame = margin_frame([2.0] * 6, [0.0] * 6, group="question")
    unsure = frame.assign(label="unsure")
    blind = frame.assign(group="no-image")
    made = separation(pd.concat([frame, unsure, blind], ignore_index=True))
    assert set(made["group"]) == {"all", "question"} and set(made["n"]) == {12}


def test_the_headline_is_questions_where_groups_are_known():
    both = [margin_frame([2.0] * 6, [0.0] * 6, group=name) for name in ("question", "description")]
    made = separation(pd.concat(both))
    assert set(headline(made)["group"]) == {"question"}
    assert set(headline(separation(margin_frame([2.0], [1.0])))["group"]) == {"all"}


# --- in words ---------------------------------------------------------------------------------


def spread(good, bad, n=60, seed=0):
    """Margins of which `good` separates and `bad` does not."""
    rng = np.random.default_rng(seed)
    frame = margin_frame(range(n), range(n))
    labels = (frame["label"] == "biased").to_numpy()
    frame[good] = rng.normal(0, 1, 2 * n) + 2.0 * labels
    frame[bad] = rng.normal(0, 1, 2 * n)
    return frame


def test_the_words_follow_the_winner_and_the_papers_reading():
    said = describe(separation(spread("margin_mean", "margin_sum")))
    assert "60 of 120 are noise (50 %" in said
    assert "The per-token average separates better" in said and "as the paper reads it" in said
    assert "The interval of the sum holds 0.5" in said
    said = describe(separation(spread("margin_sum", "margin_mean")))
    assert "The sum separates better" in said and "against the per-token average" in said


def test_the_words_say_when_the_interval_does_not_decide():
    frame = spread("margin_sum", "margin_mean")
    frame["margin_mean"] = frame["margin_sum"] * 2
    assert "The interval does not decide" in describe(separation(frame))


def test_the_words_say_when_a_margin_points_the_wrong_way():
    frame = spread("margin_sum", "margin_mean")
    frame["margin_sum"] = -frame["margin_sum"]
    assert "By the sum, noise has the larger margins" in describe(separation(frame))


@pytest.mark.parametrize(
    ("free", "noisy", "sentence"),
    [
        ([1.0] * 9, [0.0] * 2, "With only 2 noise there is no interval"),
        ([1.0] * 9, [], "All are noise-free"),
        ([], [1.0] * 9, "All are noise,"),
    ],
)
def test_the_words_say_when_there_is_too_little_to_tell(free, noisy, sentence):
    assert sentence in describe(separation(margin_frame(free, noisy)))


def test_nothing_labelled_is_said_too():
    empty = margin_frame([1.0], [2.0]).assign(label="unsure")
    assert "nothing to compare" in describe(separation(empty))


def test_the_table_to_read_says_what_the_separation_found():
    frame = pd.concat(
        [spread("margin_sum", "margin_mean"), margin_frame([], [], kind="vision_biased")]
    )
    facts = separation(frame)
    made = separation_to_read(facts)
    first = facts[(facts["statistic"] == "sum") & facts["equal_kept"]].iloc[0]
    row = made.loc[(first["kind"], "all", "sum")]
    assert row["AUROC"].startswith(f"{first['auroc']:.3f} [{first['auroc_low']:.3f}, ")
    assert row["median noise-free"] == f"{first['median_noise_free']:.2f}"
    assert len(made) == len(facts) / 2
    one_sided = separation(margin_frame([1.0, 2.0, 3.0], []))
    lacking = separation_to_read(one_sided).iloc[0]
    assert lacking["AUROC"] == "not defined" and lacking["median noise"] == ""
    assert separation_to_read(separation(margin_frame([], []))).empty


def test_the_words_say_when_all_noise_is_a_repetition_and_nothing_can_be_compared():
    frame = margin_frame([1.0, 2.0, 3.0, -1.0, 4.0, 2.0], [0.0] * 6, equal=6)
    said = describe(separation(frame))
    assert "All of the noise equals the chosen response" in said
    assert "cannot be told from these" in said and "does not decide" not in said


def test_the_words_do_not_call_noise_a_repetition_because_as_many_others_are_one():
    frame = spread("margin_sum", "margin_mean", n=12)
    frame.loc[frame["label"] == "biased", "equal_to_chosen"] = True
    said = describe(separation(frame))
    assert "12 equal the chosen response, 12 of them labelled noise-free." in said
    assert "All of the noise equals" not in said and "separates better" in said
    both = frame.assign(equal_to_chosen=True)
    assert "All of the noise equals" in describe(separation(both))
