import pytest

from napo.config.contrast import Contrast
from napo.config.variants import LOSSES, VARIANTS, Loss, Term, Variant
from napo.errors import NapoError


def test_each_loss_names_a_function():
    from napo.config.registry import look_up

    for loss in LOSSES.values():
        assert callable(look_up(loss.function, loss.name))


def test_a1_is_the_full_method_of_section_4():
    rejected, language, vision = VARIANTS["A1"].terms
    assert (rejected.loss, language.loss, vision.loss) == ("dpo", "napo", "napo")
    assert (language.response, language.average, language.alpha) == ("language_biased", "mean", 0.5)
    assert (vision.response, vision.average, vision.alpha) == ("vision_biased", "sum", 0.01)
    assert VARIANTS["A1"].gamma == "margin"


@pytest.mark.parametrize(
    ("table", "names"),
    [
        (1, {"vcd", "dpo", "mdpo", "A1"}),
        (2, {"A1", "A2", "A3", "LB1", "LB2", "VB1", "VB2"}),
        (3, {"dpo", "A1", "random"}),
        (4, {"A1", "LB1", "LB-sum", "VB1", "VB-mean"}),
    ],
)
def test_the_rows_of_each_table_are_those_of_the_paper(table, names):
    assert {v.name for v in VARIANTS.values() if table in v.tables} == names


def test_titles_and_colours_are_not_part_of_the_definition():
    plain = Variant("x", (Term("rejected"),))
    dressed = Variant("y", (Term("rejected"),), title="t", row="r", colour="#000000", tables=(1,))
    assert plain.definition() == dressed.definition()


def test_the_power_is_part_of_the_definition_of_tempered_weights_only():
    terms = (Term("rejected"),)
    assert "temper" not in Variant("x", terms, temper=0.3).definition()
    assert Variant("x", terms, "tempered", temper=0.3).definition()["temper"] == 0.3


def test_the_responses_begin_with_the_chosen_one_and_repeat_none():
    terms = (Term("rejected"), Term("chosen", "anchor"), Term("rejected", name="again"))
    assert Variant("x", terms).responses == ("chosen", "rejected")


def test_a_term_takes_strength_from_its_loss_and_name_from_its_response():
    term = Term("rejected", "ropo")
    assert (term.strength, term.name) == (2.0, "rejected")


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Loss("x", "m:f", margin="rewards"), "Unknown margin 'rewards'. Did you mean"),
        (lambda: Term("rejectd"), "Unknown response 'rejectd'. Did you mean 'rejected'"),
        (lambda: Term("rejected", "dpoo"), "Unknown loss 'dpoo'. Did you mean 'dpo'"),
        (lambda: Term("rejected", average="max"), "Unknown average 'max'"),
        (lambda: Term("rejected", q=1.1), r"q is 1.1; it must lie in \[0, 1\]"),
        (lambda: Term("rejected", alpha=-0.5), "alpha is -0.5; it must lie in"),
        (lambda: Term("rejected", alpha=float("nan")), "alpha is nan; it must lie in"),
        (lambda: Term("rejected", strength=float("nan")), "strength of dpo is nan"),
        (lambda: Variant("x", (Term("rejected"),), sft=-1), "A weight of x is -1; weights are"),
        (lambda: Variant("x", (Term("rejected"),), "fixed", (-1.0,)), "A weight of x is -1.0"),
        (lambda: Term("rejected", label_smoothing=0.5), "label_smoothing is 0.5; it must lie in"),
        (lambda: Term("rejected", strength=0), "strength of dpo is 0; it must be positive"),
        (lambda: Variant("x", (Term("rejected"))), r"terms of x are no tuple; write \(Term"),
        (lambda: Variant("x", ()), "terms of x are no tuple"),
        (
            lambda: Variant("x", (Term("rejected"),), contrast=Contrast()),
            r"x has terms and a contrast, .* set evaluation\.decoding\.contrast in the profile",
        ),
        (lambda: VARIANTS["vcd"].require_terms(), "vcd is not trained: it decodes the base model"),
        (lambda: Variant("x", (Term("rejected"),) * 2), "Two terms of x have the same name"),
        (lambda: Variant("x", (Term("rejected"),), "margins"), "Unknown gamma rule 'margins'"),
        (lambda: Variant("x", (Term("rejected"),), q_rule="new"), "Unknown q rule 'new'"),
        (lambda: Variant("x", (Term("rejected"),), q_rule="per-pairs"), "mean 'per-pair'"),
        (lambda: Variant("x", (Term("rejected"),), "tempered", temper=0), "temper of x is 0; it"),
        (lambda: Variant("x", (Term("rejected"),), temper=float("nan")), "temper of x is nan"),
        (lambda: Variant("x", (Term("rejected"),), "fixed"), "0 weights for 1 terms"),
    ],
)
def test_a_mistake_in_an_entry_is_one_sentence(build, sentence):
    with pytest.raises(NapoError, match=sentence):
        build()


def test_another_function_behind_a_loss_is_another_definition(monkeypatch):
    before = VARIANTS["dpo"].definition()
    monkeypatch.setitem(LOSSES, "dpo", Loss("dpo", "napo.method.losses:mae_loss"))
    assert VARIANTS["dpo"].definition() != before


@pytest.mark.parametrize("name", ["base", "dpo-lora", "A1-qlora"])
def test_a_name_of_other_runs_is_refused(name):
    with pytest.raises(NapoError, match="taken by other runs"):
        Variant(name, (Term("rejected"),))


def test_vcd_has_the_values_of_its_paper_and_nothing_to_train():
    vcd = VARIANTS["vcd"]
    assert vcd.contrast.model_dump() == {"alpha": 1.0, "beta": 0.1, "noise_step": 500}
    assert not vcd.trained and VARIANTS["A1"].trained
