import subprocess
import sys

import pytest
import torch

from napo.errors import NapoError
from napo.method.tensors import LogProbs


def test_means_divide_sums_by_tokens():
    logps = LogProbs(torch.tensor([[-6.0, -8.0]]), torch.tensor([[3, 2]]), ("chosen", "rejected"))
    assert logps.mean.tolist() == [[-2.0, -4.0]]
    assert [part.tolist() for part in logps.of("rejected")] == [[-8.0], [-4.0]]


def test_a_response_that_was_not_scored_is_named():
    logps = LogProbs(torch.zeros(1, 1), torch.ones(1, 1), ("chosen",))
    with pytest.raises(NapoError, match="Unknown response 'rejected'"):
        logps.of("rejected")


def test_rows_without_a_reference_column_are_refused():
    with pytest.raises(NapoError, match="no reference column 'chosen_logp'"):
        LogProbs.from_rows([{"id": "a"}], ("chosen",))


def test_half_precision_is_widened_before_sums_are_divided():
    logps = LogProbs(torch.tensor([[-10.0]]).bfloat16(), torch.tensor([[3]]), ("chosen",))
    assert logps.sum.dtype == torch.float32 and logps.mean.item() == pytest.approx(-10 / 3, 1e-7)


@pytest.mark.kind("zero tokens")
def test_a_response_without_tokens_is_refused_by_row_and_name(result):
    with pytest.raises(NapoError, match="Row 1, counted from 0, has no tokens in its re") as caught:
        LogProbs(torch.zeros(2, 2), torch.tensor([[3, 2], [4, 0]]), ("chosen", "rejected"))
    with pytest.raises(NapoError, match="Row 0, counted from 0, has no tokens in its chosen"):
        LogProbs.from_rows([{"chosen_logp": 0.0, "chosen_tokens": 0}], ("chosen",))
    result(caught.value)


def test_losses_and_objective_need_no_model_library():
    code = (
        "import sys, napo.method.objective, napo.method.other_losses\n"
        "heavy = {'transformers', 'PIL', 'datasets', 'pandas', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize(
    "change",
    [
        {"chosen_logp": None},
        {"chosen_logp": "low"},
        {"chosen_tokens": None},
        {"chosen_tokens": float("nan")},
        {"chosen_tokens": float("inf")},
    ],
    ids=str,
)
def test_a_reference_column_without_a_number_is_refused_by_row(change, result):
    row = {"id": "a", "chosen_logp": -3.5, "chosen_tokens": 7}
    with pytest.raises(NapoError, match=r"^Row b: a reference column holds no number") as caught:
        LogProbs.from_rows([row, row | {"id": "b"} | change], ("chosen",))
    result(caught.value)
