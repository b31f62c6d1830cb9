"""Visual contrastive decoding against two whole forward passes for each token."""

import engine_fixtures as engine
import family_fixtures
import numpy as np
import pytest
import torch
from PIL import Image

import napo.models.generate
from napo.config.contrast import Contrast
from napo.config.profile import Decoding
from napo.models.contrast import contrasted, noised, signal
from napo.models.generate import Prompt, generate
from napo.models.load import has_axes
from napo.models.prompts import image_pixels

STRONG = Contrast(alpha=2.0, beta=0.05, noise_step=700)
LENGTH = 8
QUESTIONS = (
    "is the cat red ?",
    "describe the picture",
    "what colour is the bird on the left and the dog on the right ?",
    "is there a dog or a bird ?",
    "one or two ?",
)


def seen(count=5, side=60):
    """Prompts of several lengths; the third has no image, two share one."""
    pictures = [engine.picture(number, size=side) for number in (0, 1, 2, 0)]
    images = [pictures[0], pictures[1], None, pictures[2], pictures[3]]
    return [Prompt(text, image) for text, image in zip(QUESTIONS, images, strict=True)][:count]


def answers(model, processor, prompts, contrast, size=4, **settings):
    decoding = Decoding(max_new_tokens=LENGTH, contrast=contrast, **settings)
    return [g.text for g in generate(model, processor, prompts, decoding, batch_size=size)]


def slowly(model, processor, prompt, contrast, seed=0):
    """The answer to one prompt by two forward passes over all tokens for each new token."""
    tokenizer, inputs = processor.tokenizer, prompt.inputs(processor)
    streams = [inputs.pixels]
    if inputs.pixels:
        streams.append(noised(inputs.pixels, contrast.noise_step, seed))
    tokens = tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id
    never = [token for token in (processor.image_token_id, *tokens) if token is not None]
    ids, prompt_length = list(inputs.ids), len(inputs.ids)
    while len(ids) < prompt_length + LENGTH:
        logits = []
        for pixels in streams:
            given = {"input_ids": torch.tensor([ids])}
            given |= {k: v for k, v in pixels.items() if isinstance(v, torch.Tensor)}
            if has_axes(model):
                given["mm_token_type_ids"] = (given["input_ids"] == processor.image_token_id).int()
            with torch.no_grad():
                outputs = model(**given, use_cache=False)
            logits.append(outputs.logits[0, -1].double().numpy())
        usable = np.ones(len(logits[0]), bool)
        usable[never] = False
        usable[tokenizer.eos_token_id] = len(ids) > prompt_length  # no empty answer
        chances = np.where(usable, np.exp(logits[0] - logits[0].max()), 0)
        chances /= chances.sum()
        scores = logits[0]
        if len(logits) == 2:
            scores = (1 + contrast.alpha) * logits[0] - contrast.alpha * logits[1]
            usable &= chances >= contrast.beta * chances.max()
        token = int(np.where(usable, scores, -np.inf).argmax())
        ids.append(token)
        if token == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[prompt_length:], skip_special_tokens=True).strip()


@pytest.fixture(scope="module", params=list(family_fixtures.SIZES))
def family(request):
    """A tiny random model of each family, which ends some answers early, and its processor."""
    processor = family_fixtures.processor(request.param)
    model = family_fixtures.model(request.param, processor)
    with torch.no_grad():
        model.lm_head.weight[processor.tokenizer.eos_token_id] *= 3
    return model, processor


@pytest.fixture
def padded(monkeypatch):
    """Full batches with padding, as on a GPU."""
    original = napo.models.generate.batches
    full = lambda *given, equal: original(*given, equal=False)  # noqa: E731
    monkeypatch.setattr(napo.models.generate, "batches", full)


@pytest.mark.usefixtures("padded")
def test_a_padded_batch_answers_as_two_whole_passes_for_each_token(family):
    model, processor = family
    prompts = seen()
    expected = [slowly(model, processor, prompt, STRONG) for prompt in prompts]
    plain = answers(model, processor, prompts, None)
    assert answers(model, processor, prompts, STRONG, size=5) == expected
    assert expected != plain
    assert expected[2] == plain[2]  # no image, no contrast


def test_answers_do_not_depend_on_the_batch(family):
    model, processor = family
    prompts = seen()
    expected = answers(model, processor, prompts, STRONG, size=1)
    assert answers(model, processor, prompts, STRONG, size=4) == expected
    assert answers(model, processor, prompts[::-1], STRONG, size=4) == expected[::-1]


@pytest.mark.usefixtures("padded")
def test_without_alpha_and_beta_it_is_plain_greedy_decoding(family):
    model, processor = family
    nothing = Contrast(alpha=0.0, beta=0.0)
    assert answers(model, processor, seen(), nothing) == answers(model, processor, seen(), None)


def test_a_beta_of_one_is_plain_greedy_decoding(family):
    model, processor = family
    likeliest = Contrast(alpha=3.0, beta=1.0)
    assert answers(model, processor, seen(), likeliest) == answers(model, processor, seen(), None)


def test_sampled_answers_do_not_depend_on_the_batch():
    processor = engine.processor()
    model, prompts = engine.model(processor, seed=1), seen()
    one, four = (
        answers(model, processor, prompts, STRONG, size, temperature=1.0) for size in (1, 4)
    )
    assert one == four


def test_the_worlds_model_is_contrasted_as_by_two_whole_passes(world):
    model, processor, prompts = world
    expected = [slowly(model, processor, prompt, Contrast()) for prompt in prompts]
    assert answers(model, processor, prompts, Contrast()) == expected


@pytest.fixture(scope="module")
def world():
    """The tiny checkpoint, whatever it says, with pictures of noise and of one colour."""
    from napo import load_model
    from napo.config.profile import load_profile

    settings = load_profile("tiny").model
    model, processor = load_model(settings.location, **settings.loading)
    numbers = np.random.default_rng(3).integers(0, 255, (2, 64, 64, 3), dtype=np.uint8)
    images = [*map(Image.fromarray, numbers), Image.new("RGB", (64, 64), "white"), None]
    questions = ("What is in the picture?", "Describe the picture.", "Is it red?", "What is it?")
    prompts = [Prompt(text, image) for text in questions for image in images]
    return model, processor, prompts


def test_implausible_tokens_are_cut_before_the_difference_is_taken():
    # Chances 0.5, 0.3, 0.15, 0.05 given the picture; beta 0.4 keeps those of at least 0.2.
    chances = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    of_noised = torch.tensor([[0.4, 0.1, 0.1, 0.4]])
    result = contrasted(chances.log(), of_noised.log(), Contrast(alpha=1.0, beta=0.4))
    # 2 log p - log p': p^2 / p' is 0.625 and 0.9. The second token wins.
    assert result.exp().tolist()[0] == pytest.approx([0.625, 0.9, 0.0, 0.0])
    uncut = contrasted(chances.log(), of_noised.log(), Contrast(alpha=1.0, beta=0.0))
    assert uncut.exp().tolist()[0] == pytest.approx([0.625, 0.9, 0.225, 0.00625])


def test_a_token_that_no_answer_contains_stays_impossible():
    logits = torch.tensor([[1.0, -torch.inf, 0.5]])
    result = contrasted(logits, torch.tensor([[0.0, -9.0, 0.0]]), Contrast(beta=0.0))
    assert result.tolist() == [[2.0, -torch.inf, 1.0]]


def test_the_noise_follows_the_released_schedule_step_by_step():
    left, shares = 1.0, []
    for number in range(1000):
        position = -6 + 12 * number / 999
        left *= 1 - (1e-5 + (5e-3 - 1e-5) / (1 + np.exp(-position)))
        shares.append(left)
    for step in (0, 1, 500, 999):
        assert signal(step) == pytest.approx(shares[step], rel=1e-9)


def test_noise_has_the_variance_of_its_step_and_scales_the_image_down():
    image = {"pixel_values": torch.ones(1, 3, 64, 64), "image_grid_thw": torch.tensor([1])}
    made = noised(image, 500, seed=0)
    values, kept = made["pixel_values"], signal(500)
    # 12,288 numbers: four standard errors of their mean and of their variance.
    assert values.mean().item() == pytest.approx(kept**0.5, abs=4 * ((1 - kept) / 12288) ** 0.5)
    assert values.var().item() == pytest.approx(1 - kept, rel=4 * (2 / 12288) ** 0.5)
    assert made["image_grid_thw"] is image["image_grid_thw"]
    assert image["pixel_values"].eq(1).all()


def test_noise_depends_on_the_image_and_the_seed_only():
    processor = engine.processor()
    first, second = (image_pixels(processor, engine.picture(number)) for number in (0, 1))
    again = {"pixel_values": first["pixel_values"].clone()}

    def noise(pixels, seed):
        values = (
            noised(pixels, 300, seed)["pixel_values"]
            - signal(300) ** 0.5 * (pixels["pixel_values"])
        )
        return values.flatten()[:4].tolist()

    assert noise(first, 0) == noise(again, 0)
    assert noise(first, 0) != noise(first, 1)
    assert noise(first, 0) != noise(second, 0)


def test_an_image_and_its_noised_copy_pass_the_vision_tower_once_each(monkeypatch):
    processor = engine.processor()
    model = engine.model(processor, seed=1)
    original, images = model.get_image_features, []

    def counting(**inputs):
        images.append(len(inputs["pixel_values"]))
        return original(**inputs)

    monkeypatch.setattr(model, "get_image_features", counting)
    answers(model, processor, seen(), STRONG, size=2)
    assert images == [3, 3]  # three distinct pictures; the fifth prompt repeats the first
