import json

import numpy as np
import pytest

from napo.icon_world import rows
from napo.icon_world.scenes import KINDS
from napo.models.generate import Generated


@pytest.mark.parametrize(
    ("answer", "corrupted"),
    [
        ("Yes, there is a duck.", "No, there is no duck."),
        ("False, there is no apple.", "True, there is an apple."),
        ("No, the cow is red and the pig is pink.", "Yes, both are red."),
        ("Yes", "No"),
    ],
)
def test_a_turned_verdict_keeps_a_reason_that_fits_it(answer, corrupted):
    assert rows.corrupt(np.random.default_rng(0), answer) == corrupted


def test_corrupted_counts_and_articles_are_english():
    rng = np.random.default_rng(0)
    counts = {rows.corrupt(rng, "There are two objects.") for _ in range(20)}
    assert counts == {"There is one object.", "There are three objects."}
    described = [rows.corrupt(rng, "There is a red cow at the top left.") for _ in range(200)]
    assert any("an orange cow" in text for text in described)
    assert not any("a orange" in text or "an red" in text for text in described)
    kinds = {word for text in described for word in text.split() if word in KINDS}
    assert len(kinds) > 5  # a description is also corrupted by another thing


def make_rows(monkeypatch, answer):
    """Rows of a model that answers every prompt with this text."""

    def generate(model, processor, prompts, *args, **settings):
        return [Generated(answer, 3, False) for _ in prompts]

    monkeypatch.setattr(rows, "generate", generate)
    return rows.make_rows(None, None, count=60, seed=3, p_typical=0.5)


def test_rejected_is_the_models_own_error_or_the_truth_with_a_changed_fact(monkeypatch):
    wrong, silent = make_rows(monkeypatch, "Bananas sing."), make_rows(monkeypatch, "")
    assert {row["rejected"] for row in wrong} == {"Bananas sing."}
    assert {json.loads(row["truth"])["rejected_by"] for row in wrong} == {"model"}
    assert all(row["rejected"] not in ("", row["chosen"]) for row in silent)
    assert {json.loads(row["truth"])["rejected_by"] for row in silent} == {"rule"}
    assert [row["chosen"] for row in wrong] == [row["chosen"] for row in silent]
