import pytest
from results_fixtures import drawn

from napo.config.benchmarks import metrics
from napo.lab import views
from napo.results.collect import collect
from napo.results.tables import table
from napo.stages.session import open_session


@pytest.mark.parametrize(
    ("variant", "terms"),
    [
        ("dpo", [("rejected", "dpo", "", "1")]),
        (
            "A1",
            [
                ("rejected", "dpo", "", "γ of Eq. 13"),
                ("language_biased", "napo", "Eq. 12, ψ_mean, α 0.5", "γ of Eq. 13"),
                ("vision_biased", "napo", "Eq. 12, ψ_sum, α 0.01", "γ of Eq. 13"),
            ],
        ),
        ("random", [(None, None, None, "1, drawn for the step")] * 3),
        ("q-0.5", [(None, None, q, "γ of Eq. 13") for q in ("", "0.5", "0.5")]),
        ("dpo-pair", [("rejected", "dpo", "", "1 + tanh(ψ / spread) of each pair")]),
        ("dpo-pair-q", [("rejected", "napo", "σ(-2 ψ / spread) of each pair", "1")]),
        (
            "A1-posterior",
            [(None, None, q, None) for q in ("", *["probability of noise of each pair"] * 2)],
        ),
        ("A1-mean-gamma", [(None, None, None, "γ of Eq. 13, ψ_mean")] * 3),
        ("A1-tempered", [(None, None, None, "γ of Eq. 13, ψ^0.5")] * 3),
        ("A1-sft", [(None,) * 4] * 3 + [("chosen", "sft", "", "0.1")]),
    ],
)
def test_a_variant_is_shown_as_the_paper_writes_it(tmp_path, variant, terms):
    table = views.objective(open_session("smoke", str(tmp_path)), variant)
    rows = list(table.reset_index().itertuples(index=False, name=None))
    assert len(rows) == len(terms)
    for row, wanted in zip(rows, terms, strict=True):
        assert [got for got, want in zip(row, wanted, strict=True) if want is not None] == [
            want for want in wanted if want is not None
        ]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "not run"),
        ({"value": None, "low": None, "high": None}, "not defined"),
        ({"value": 0.5, "low": None, "high": None}, "0.5 [not defined]"),
        ({"value": 0.5, "low": 0.3, "high": 0.7}, "0.5 [0.3, 0.7]"),
    ],
)
def test_a_metric_or_interval_that_is_missing_is_said(estimate, text):
    assert views.metric_text(estimate, metrics()[0]) == text


def test_a_table_shows_what_ran_and_folds_all_other_rows(tmp_path):
    results = collect(drawn(tmp_path, {"base": 0.3, "A1": 0.8}, (0,)), ["A1"], [0])
    shown, _, folded = views.table(table(1, results)).data.partition("<details")
    assert "<code>A1</code>" in shown and "GPT-4V" not in shown and "<i>" not in shown
    assert "GPT-4V" in folded and "<i>not run</i>" in folded
