"""Running out of memory costs time and changes no answer."""

import logging
from functools import partial

import engine_fixtures as engine
import pytest
import torch

from napo.config.profile import Decoding
from napo.errors import NapoError
from napo.models.generate import Prompt, generate
from napo.models.halving import Halving, ran_out


def too_much(rows, most):
    """Raise the CPU allocator's real error."""
    torch.empty(2**50 if rows > most else 1, dtype=torch.uint8)


@pytest.fixture(scope="module")
def processor():
    return engine.processor()


@pytest.fixture
def model(processor):
    return engine.model(processor)


def prompts(count):
    return [Prompt("is the cat red ?", row["image"]) for row in engine.rows(count)]


@pytest.mark.parametrize("decoding", [{"temperature": 1.0}, {"num_beams": 2}])
def test_a_batch_is_halved_until_it_fits_with_the_same_answers(processor, model, decoding, caplog):
    settings = Decoding(max_new_tokens=6, **decoding)
    answers = partial(generate, model, processor, prompts(12), settings, batch_size=12, seed=3)
    expected = answers()

    def check(module, args, kwargs):
        inputs = kwargs.get("inputs_embeds", kwargs.get("input_ids"))
        too_much(inputs.shape[0], 3 * settings.num_beams)

    model.register_forward_pre_hook(check, with_kwargs=True)
    with caplog.at_level(logging.WARNING, "napo"):
        assert answers() == expected
    assert [record.getMessage() for record in caplog.records] == [
        "Memory ran out with 12 prompts at a time; going on with 6.",
        "Memory ran out with 6 prompts at a time; going on with 3.",
    ]


def test_a_single_prompt_that_does_not_fit_is_one_sentence(processor, model):
    model.register_forward_pre_hook(lambda *_: too_much(1, 0))
    with pytest.raises(NapoError, match="does not hold one of the prompts; lower max_new_tokens"):
        generate(model, processor, prompts(4), Decoding(max_new_tokens=4), batch_size=4)


def test_later_batches_start_at_the_size_that_fits():
    sizes = []

    def work(part):
        sizes.append(len(part))
        too_much(len(part), 2)
        return part

    halving = Halving("items", "advice")
    done = [part for start in (0, 8) for part, _ in halving(work, list(range(start, start + 8)))]
    assert [item for part in done for item in part] == list(range(16))
    assert sizes == [8, 4, *[2] * 8]


def test_only_errors_about_memory_halve_the_batch():
    def work(part):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Halving("items", "")(work, [1, 2]))
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory."))
    assert not ran_out(ValueError("out of memory"))
