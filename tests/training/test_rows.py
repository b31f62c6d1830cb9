"""Training data: encoded once or when needed, checked first, shuffled by seed and epoch."""

# ruff: noqa: F401, F811 - fixtures of trainer_fixtures

import datasets
import pandas as pd
import pytest
import torch
from trainer_fixtures import base, rows, trainer

from napo.config.variants import BIASED, VARIANTS
from napo.data.sources import BadRow
from napo.errors import NapoError
from napo.models.files import load_processor
from napo.training.records import read_records
from napo.training.rows import EncodedRows, EpochSampler


@pytest.fixture
def large_data(monkeypatch):
    """Rows count as too large for memory."""
    monkeypatch.setattr("napo.training.rows.CACHE_BYTES", 0)


@pytest.mark.parametrize("kind", ["list", "dataset"])
def test_rows_encoded_when_needed_equal_those_in_memory(base, rows, request, kind):
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


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda rows: [], "no rows to train on"),
        (lambda rows: datasets.DatasetDict(train=table(rows)), "a DatasetDict of train; give one"),
        (lambda rows: table(rows).to_iterable_dataset(), "a stream without length .*list"),
        (lambda rows: iter(rows), "a list_iterator, a stream without length"),
        (lambda rows: pd.DataFrame(rows), r"a DataFrame; give its rows.to_dict\('records'\)"),
        (lambda rows: {"question": ["?"]}, "a dict of question; give one"),
        (lambda rows: "rows.parquet", "the text 'rows.parquet'; give the loaded rows"),
    ],
)
def test_data_that_is_no_table_of_rows_is_refused(base, rows, form, message, result):
    with pytest.raises(NapoError, match=message) as error:
        EncodedRows(form(rows), load_processor(base), ("chosen",))
    result(error.value)


def table(rows):
    return datasets.Dataset.from_list([{**row, "image": None} for row in rows])


@pytest.mark.kind("rows as people have them")
@pytest.mark.parametrize("form", ["list", "dataset", "too large for memory"])
def test_rows_without_ids_are_recorded_by_their_position(base, rows, tmp_path, request, form):
    plain = [{key: value for key, value in row.items() if key != "id"} for row in rows]
    if form == "too large for memory":
        request.getfixturevalue("large_data")
    trainer(base, plain if form == "list" else datasets.Dataset.from_list(plain), tmp_path).train()
    ids = read_records(tmp_path / "checkpoints")["id"]
    assert len(set(ids)) == 8 and set(ids) <= {str(position) for position in range(18)}


def test_the_sampler_shuffles_by_seed_and_epoch_and_drops_incomplete_batches():
    def order(seed, epoch):
        sampler = EpochSampler(10, 4, seed)
        sampler.epoch = epoch
        return list(sampler)

    assert len(order(0, 0)) == 8 and order(0, 0) == order(0, 0)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}) == 9


@pytest.mark.kind("a stale reference")
@pytest.mark.parametrize("form", ["in memory", "too large for memory"])
@pytest.mark.parametrize(
    ("response", "change"), [("rejected", 1), ("chosen_corrupted", -1)], ids=str
)
def test_a_row_whose_text_changed_since_it_was_scored_is_refused(
    base, rows, request, form, response, change, result
):
    if form != "in memory":
        request.getfixturevalue("large_data")
    name = f"{response}_tokens"
    stale = [row | {name: row[name] + change} if row["id"] == "row-17" else row for row in rows]
    processor, responses = load_processor(base), VARIANTS["mdpo"].responses
    assert response in responses
    count = stale[17][name]
    sentence = rf"^Row row-17: its {response} has {count - change} tokens, .* scored {count},"
    with pytest.raises(NapoError, match=sentence) as caught:
        EncodedRows(stale, processor, responses)
    result(caught.value)
    EncodedRows(stale, processor, responses, reference=False)


def with_noise(rows, value=0.25):
    return [row | {f"{name}_noise": value for name in BIASED} for row in rows]


def test_probabilities_of_noise_are_carried_beside_the_reference(base, rows):
    processor, responses = load_processor(base), VARIANTS["A1"].responses
    noisy = [row | {"vision_biased_noise": at / 100} for at, row in enumerate(with_noise(rows))]
    data = EncodedRows(noisy, processor, responses, posterior=True)
    batch = data.collate([data[at] for at in (3, 1)], "shared").to("cpu")
    assert batch.posterior["vision_biased"].tolist() == pytest.approx([0.03, 0.01])
    assert batch.posterior["language_biased"].tolist() == [0.25, 0.25]
    assert data.digest != EncodedRows(with_noise(rows), processor, responses, posterior=True).digest
    more = [row | {"rejected_noise": 0.5} for row in noisy]
    assert data.digest != EncodedRows(more, processor, responses, posterior=True).digest
    assert (
        EncodedRows(rows, processor, responses).digest
        == EncodedRows(noisy, processor, responses).digest
    )  # other variants do not read them


@pytest.mark.parametrize("value", [None, 1.2, -0.1, float("nan"), "often"])
def test_a_row_without_a_probability_of_noise_is_named(base, rows, tmp_path, value):
    wrong = with_noise(rows)
    wrong[5] = wrong[5] | {"language_biased_noise": value}
    with pytest.raises(
        NapoError, match=rf"Row row-5: its language_biased_noise is {value!r}, and q"
    ):
        trainer(base, wrong, tmp_path, "A1-posterior")
    trainer(base, wrong if value is None else rows, tmp_path / "other", "A1")
