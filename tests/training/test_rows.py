"""Training data: encoded once or when needed, checked first, shuffled by seed and epoch."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import pytest
import torch
from trainer_fixtures import base, rows, trainer

from napo.config.variants import VARIANTS
from napo.data.sources import BadRow
from napo.errors import NapoError
from napo.models.load import load_processor
from napo.training.rows import EncodedRows, EpochSampler


@pytest.fixture
def large_data(monkeypatch):
    """Rows count as too large for memory."""
    monkeypatch.setattr("napo.training.rows.CACHE_BYTES", 0)


@pytest.mark.parametrize("kind", ["list", "dataset"])
def test_rows_encoded_when_needed_equal_those_in_memory(base, rows, request, kind):
    import datasets

    processor, responses = load_processor(base), VARIANTS["mdpo"].responses
    in_memory = EncodedRows(rows, processor, responses)
    request.getfixturevalue("large_data")
    data = datasets.Dataset.from_list(rows) if kind == "dataset" else rows
    later = EncodedRows(data, processor, responses)
    assert later.digest == in_memory.digest
    (row, scores), (same_row, same_scores) = later[3], in_memory[3]
    assert row.answers == same_row.answers and torch.equal(scores.sum, same_scores.sum)
    pixels = [encoded.prompts[0].pixels["pixel_values"] for encoded in (row, same_row)]
    assert torch.equal(*pixels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "what is " * 30}, "row-7: its prompt alone has"),
        ({"vision_biased": " "}, "row-7 has an empty vision_biased"),
    ],
)
def test_rows_too_large_for_memory_are_checked_first(
    base, rows, tmp_path, large_data, change, message
):
    wrong = [row | change if row["id"] == "row-7" else row for row in rows]
    with pytest.raises(NapoError, match=message):
        trainer(base, wrong, tmp_path, max_length=60)


@pytest.mark.parametrize("kind", [NapoError, BadRow])
def test_an_error_in_a_data_worker_is_one_sentence(
    base, rows, tmp_path, monkeypatch, large_data, kind
):
    def encode(index):
        raise kind(f"Row {index}: its image cannot be used.")

    made = trainer(base, rows, tmp_path, dataloader_num_workers=1)
    monkeypatch.setattr(made.train_dataset, "encode", encode)
    with pytest.raises(NapoError, match=r"^Row \d+: its image cannot be used\.$"):
        made.train()


def test_no_rows_are_refused(base):
    with pytest.raises(NapoError, match="no rows to train on"):
        EncodedRows([], load_processor(base), ("chosen",))


def test_the_sampler_shuffles_by_seed_and_epoch_and_drops_incomplete_batches():
    def order(seed, epoch):
        sampler = EpochSampler(10, 4, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert len(order(0, 0)) == 8 and order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9
