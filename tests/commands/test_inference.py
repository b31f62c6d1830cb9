"""Memory of answering and scoring against the measured peaks of the real decoder and scorer."""

import pytest

from bench import budget_check
from napo.commands import budget
from napo.commands.inference import Inference

BUILDING = budget.describe("llava-1.5-7b")
SMALL = {"layers": 2, "width": 256, "feed_forward": 688, "vocabulary": 4000, "side": 8}


@pytest.mark.parametrize(
    ("compare", "changes"),
    [
        (budget_check.answering, {"rows": 8, "new": 40}),
        (budget_check.answering, {"rows": 2, "images": 32, "new": 4}),
        (budget_check.answering, {"rows": 4, "beams": 3}),
        (budget_check.scoring, {"rows": 4}),
        (budget_check.scoring, {"rows": 2, "vocabulary": 32_000, "logits_mb": 64}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_predicted_peak_is_within_15_percent_of_a_measured_one(compare, changes):
    predicted, measured = compare(budget_check.BASE | SMALL | changes)
    assert predicted == pytest.approx(measured, rel=0.15)


def test_7b_with_a_batch_of_32_long_answers_holds_weights_and_keys_and_values():
    profile, shape, lengths = BUILDING
    weights = 2 * shape.total
    tokens = lengths.image + lengths.question + 1024
    keys_and_values = 32 * tokens * 32 * 2 * 4096 * 2  # rows, tokens, layers, both, width, bytes
    peak = Inference(*BUILDING).answering(profile.masks.decoding, 32, 256)
    assert peak.name == "the last token"
    assert peak.bytes == pytest.approx(weights + keys_and_values, rel=0.05)


def test_more_rows_or_images_never_need_less():
    profile, inference = BUILDING[0], Inference(*BUILDING)
    decoding = profile.evaluation.decoding
    peaks = [inference.answering(decoding, rows, rows).bytes for rows in (1, 2, 8, 64, 512)]
    assert peaks == sorted(peaks) and inference.scoring(1).bytes < inference.scoring(16).bytes
