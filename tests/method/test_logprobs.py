"""Shared-prefix log-probs against separate sequences, scored by a plain forward pass."""

import engine_fixtures as engine
import pytest
import torch

from napo.config.variants import CORRUPTED, RESPONSES
from napo.errors import NapoError
from napo.method import logprobs
from napo.method.layout import LAYOUTS
from napo.method.logprobs import collate, response_logprobs
from napo.method.tensors import LogProbs
from napo.models.conversation import render
from napo.models.prompts import corrupt_image, prompt_inputs

ALL = (*RESPONSES, CORRUPTED)


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


@pytest.fixture(scope="module")
def model(processor):
    return engine.model(processor)


def with_lora(model):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "lm_head"]))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return wrapped


def plain(model, processor, row, response):
    """One response as its own unpadded sequence: all logits, then a gather."""
    column = "chosen" if response == CORRUPTED else response
    image = row["image"]
    if response == CORRUPTED:
        image = corrupt_image(image, row["id"])
    prompt = render(processor, row["question"], image=True)
    ending = "" if row.get(f"{column}_cut") else " </s>"
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    whole = processor(text=[f"{prompt} {row[column]}{ending}"], images=[image], return_tensors="pt")
    start, ids = inputs["input_ids"].shape[1], whole["input_ids"]
    logits = model(**whole).logits[0, start - 1 : -1]
    return logits.log_softmax(-1).gather(1, ids[0, start:, None]).sum(), ids.shape[1] - start


def expected(model, processor, rows, responses):
    pairs = [[plain(model, processor, row, r) for r in responses] for row in rows]
    sums = torch.stack([torch.stack([value for value, _ in row]) for row in pairs])
    return sums, torch.tensor([[count for _, count in row] for row in pairs])


def close(actual, expected, tolerance=1e-4):
    return (actual - expected).abs().le(tolerance * expected.abs()).all()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lora", [False, True])
def test_equals_separate_unpadded_sequences(processor, layout, lora):
    model = engine.model(processor)
    model = with_lora(model) if lora else model
    rows = engine.rows(5)
    values = response_logprobs(model, collate(rows, processor, ALL, layout=layout))
    sums, tokens = expected(model, processor, rows, ALL)
    assert close(values.sum, sums) and torch.equal(values.tokens, tokens)
    assert close(values.mean, sums / tokens)


@pytest.mark.parametrize("lora", [False, True])
def test_gradients_equal_those_of_separate_sequences(processor, lora):
    model = engine.model(processor)
    model = with_lora(model) if lora else model
    trained = [p for p in model.parameters() if p.requires_grad]
    rows = engine.rows(4)
    weights = torch.linspace(-1, 1, 20).view(4, 5)
    shared = response_logprobs(model, collate(rows, processor, ALL)).sum
    ours = torch.autograd.grad((shared * weights).sum(), trained, allow_unused=True)
    separate, _ = expected(model, processor, rows, ALL)
    theirs = torch.autograd.grad((separate * weights).sum(), trained, allow_unused=True)
    compared = 0
    for mine, other in zip(ours, theirs, strict=True):
        if other is not None:
            assert (mine - other).abs().max() <= 1e-4 * other.abs().max() + 1e-6
            compared += 1
    assert compared > 8


@pytest.mark.parametrize(
    "attention", ["eager", pytest.param("flex_attention", marks=pytest.mark.long)]
)
def test_attention_kernels_agree(processor, model, attention):
    batch = collate(engine.rows(4), processor)
    other = engine.model(processor, attention=attention)
    with torch.no_grad():  # flex_attention has no backward on a CPU
        sdpa = response_logprobs(model, batch).sum
        assert close(response_logprobs(other, batch).sum, sdpa)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_token_sees_no_other_row_of_its_sequence(processor, attention):
    model = engine.model(processor, attention=attention)
    rows = engine.rows(6)
    changed = [*rows[:2], {**rows[2], "image": engine.picture(99)}, *rows[3:]]
    changed[2]["chosen"] = " ".join(reversed(rows[2]["chosen"].split()))  # of the same length
    before, after = (collate(batch, processor, ALL, layout="packed") for batch in (rows, changed))
    assert len(before.input_ids) < len(rows)
    with torch.no_grad():
        moved = response_logprobs(model, before).sum - response_logprobs(model, after).sum
    assert moved[2].abs().max() > 0.1
    moved[2] = 0
    assert moved.abs().max() < 1e-5


def test_logits_in_chunks_change_neither_values_nor_gradients(processor, model):
    batch = collate(engine.rows(4), processor)
    weight = model.lm_head.weight
    results = []
    for megabytes in (256, 1e-3, 1e-9):  # all at once, a few positions, one position at a time
        sums = response_logprobs(model, batch, logits_mb=megabytes).sum
        results.append((sums, torch.autograd.grad(sums.sum(), weight)[0]))
    for sums, gradient in results[1:]:
        assert close(sums, results[0][0], 1e-5)
        assert torch.allclose(gradient, results[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_chunks_stay_under_the_limit(grad):
    rows, vocabulary, limit_mb = 64, 1000, 0.05
    sizes = []
    weight = torch.randn(vocabulary, 8, requires_grad=True)

    def project(hidden):
        logits = hidden @ weight.T
        sizes.append(logits.nbytes)
        return logits

    hidden = torch.randn(rows, 8, requires_grad=grad)
    targets = torch.randint(vocabulary, (rows,))
    with torch.set_grad_enabled(grad):
        values = logprobs.token_logprobs(project, hidden, targets, vocabulary, limit_mb)
        if grad:
            values.sum().backward()
    assert max(sizes) * 3 <= limit_mb * 2**20  # logits, log-softmax, gradient
    assert len(sizes) == (2 if grad else 1) * 16  # 4 positions a chunk; again for the gradient


def test_the_output_layer_is_restored_also_after_an_error(processor, model):
    batch = collate(engine.rows(1), processor)
    response_logprobs(model, batch)
    assert "forward" not in vars(model.lm_head)
    broken = batch.to("cpu")
    broken.pixels.clear()
    broken.pixels["pixel_values"] = torch.zeros(3, 3, 24, 24)  # more images than image tokens
    with pytest.raises(Exception, match=r"[Ii]mage"):
        response_logprobs(model, broken)
    assert "forward" not in vars(model.lm_head)


def test_log_probs_go_through_the_wrapped_modules_forward(processor, model):
    class Wrapper(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, **inputs):
            self.calls += 1
            return self.module(**inputs)

    batch, wrapper = collate(engine.rows(2), processor), Wrapper(model)
    assert torch.equal(response_logprobs(wrapper, batch).sum, response_logprobs(model, batch).sum)
    assert wrapper.calls == 1


def test_the_end_token_counts_unless_the_response_was_cut(processor, model):
    row = {**engine.rows(1)[0], "chosen": "a cat", "rejected": "a cat", "rejected_cut": True}
    values = response_logprobs(model, collate([row], processor, ("chosen", "rejected")))
    assert values.tokens.tolist() == [[3, 2]]
    assert values.sum[0, 0] < values.sum[0, 1]


def test_the_corrupted_image_is_made_from_the_rows_id(processor, model):
    rows = engine.rows(1)
    first = response_logprobs(model, collate(rows, processor, ALL)).of(CORRUPTED)[0]
    again = response_logprobs(model, collate(rows, processor, (CORRUPTED,))).of(CORRUPTED)[0]
    assert close(first, again, 1e-5)
    other = response_logprobs(model, collate([{**rows[0], "id": "else"}], processor, ALL))
    assert not close(other.of(CORRUPTED)[0], first, 1e-5)


def test_a_long_response_loses_its_end_and_a_long_prompt_is_refused(processor, model):
    row = {**engine.rows(1)[0], "question": "is it ?", "chosen": "the cat is red or blue ."}
    prompt = len(prompt_inputs(processor, row["question"], row["image"]).ids)
    batch = collate([row], processor, ("chosen",), max_length=prompt + 4)
    assert batch.tokens.item() == 4
    cut = {**row, "chosen": "the cat is red", "chosen_cut": True}
    kept = response_logprobs(model, collate([cut], processor, ("chosen",))).sum
    assert close(response_logprobs(model, batch).sum, kept, 1e-5)
    with pytest.raises(NapoError, match=f"row-0: its prompt alone has {prompt} tokens"):
        collate([row], processor, ("chosen",), max_length=prompt)


def test_reference_scores_come_back_in_the_rows_order(processor, model):
    rows = engine.rows(7)
    scored = logprobs.score_reference(model, processor, rows, ALL, batch_size=3)
    assert [row["id"] for row in scored] == [row["id"] for row in rows]
    direct = response_logprobs(model, collate(rows, processor, ALL))
    joined = LogProbs.from_rows(scored, ALL)
    assert close(joined.sum, direct.sum.double(), 1e-5)
    assert torch.equal(joined.tokens, direct.tokens)
    assert set(scored[0]) == {"id", *(f"{r}_{k}" for r in ALL for k in ("logp", "tokens"))}


def test_rows_with_reference_columns_carry_them_into_the_batch(processor, model):
    rows = engine.rows(2)
    assert collate(rows, processor).reference is None
    scored = logprobs.score_reference(model, processor, rows)
    batch = collate([r | s for r, s in zip(rows, scored, strict=True)], processor)
    assert batch.reference.of("chosen")[0].tolist() == [row["chosen_logp"] for row in scored]


def test_bfloat16_stays_within_its_own_spread(processor):
    """Packed, shared and separate bfloat16 passes have similar errors against float32."""
    rows = engine.rows(6)
    exact = response_logprobs(engine.model(processor), collate(rows, processor)).sum
    half = engine.model(processor).to(torch.bfloat16)
    laid = [collate(rows, processor, layout=layout) for layout in LAYOUTS]
    for batch in laid:
        batch.pixels["pixel_values"] = batch.pixels["pixel_values"].to(torch.bfloat16)
    with torch.no_grad():
        sums = [response_logprobs(half, batch).sum for batch in laid]
    assert sums[0].dtype == torch.float32
    packed, shared, separate = ((values - exact).abs().mean() for values in sums)
    assert max(packed, shared) <= 2 * separate + 1e-3


def test_a_reference_too_large_for_memory_is_scored_in_smaller_batches(
    processor, model, monkeypatch, caplog
):
    rows, real = engine.rows(7), logprobs.response_logprobs
    expected = LogProbs.from_rows(logprobs.score_reference(model, processor, rows))

    def little(model, batch, **limits):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return real(model, batch, **limits)

    monkeypatch.setattr(logprobs, "response_logprobs", little)
    halved = LogProbs.from_rows(logprobs.score_reference(model, processor, rows))
    assert close(halved.sum, expected.sum) and torch.equal(halved.tokens, expected.tokens)
    assert "Memory ran out with 7 rows at a time; going on with 3." in caplog.text
