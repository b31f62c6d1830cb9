"""Answers are decoded by the profile's settings, whatever a checkpoint's generation config says."""

import family_fixtures as fixtures
import pytest
from transformers import GenerationConfig

from napo.config.profile import Decoding
from napo.models import families
from napo.models.decoding import decoding_record, neutral_config
from napo.models.generate import Prompt, generate

HIDDEN = pytest.mark.kind("hidden defaults of a checkpoint")
WORD = 12  # a token that greedy answers use
HOSTILE = {
    "repetition_penalty": {"repetition_penalty": 5.0},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 9.0},
    "num_return_sequences": {"num_return_sequences": 2, "num_beams": 2},
    "ngrams": {"no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1},
    "lengths": {"length_penalty": 9.0, "min_length": 90, "max_length": 3, "early_stopping": True},
    "decay": {"exponential_decay_length_penalty": (1, 9.0)},
    "forced tokens": {"forced_bos_token_id": WORD, "forced_eos_token_id": WORD},
    "banned words": {"bad_words_ids": [[n] for n in range(6, 20)]},
    "bias": {"sequence_bias": [[[WORD], 50.0]]},
    "suppressed": {"suppress_tokens": list(range(6, 20)), "begin_suppress_tokens": [WORD, 20, 21]},
    "guidance": {"guidance_scale": 8.0},
    "sampling": {"do_sample": True, "temperature": 9.0, "min_p": 0.2, "typical_p": 0.3},
    "cut-offs": {"do_sample": True, "epsilon_cutoff": 0.3, "eta_cutoff": 0.3, "top_k": 2},
    "limits": {"max_time": 0.0, "stop_strings": ["a"], "max_new_tokens": 1},
    "machinery": {"use_cache": False, "output_scores": True, "return_dict_in_generate": True},
    "chunks": {"prefill_chunk_size": 2, "renormalize_logits": True, "remove_invalid_values": True},
}


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def parts(request):
    """A model, its processor and prompts, and its answers with a clean generation config."""
    family = request.param
    processor = fixtures.processor(family)
    model = fixtures.model(family, processor)
    prompts = [Prompt(row["question"], row["image"]) for row in fixtures.rows(family, 3)]
    ends = {"eos_token_id": processor.tokenizer.eos_token_id}
    model.generation_config = GenerationConfig(**ends)
    answers = {
        beams: generate(model, processor, prompts, Decoding(max_new_tokens=6, num_beams=beams))
        for beams in (1, 2)
    }
    assert len({answer.text for answer in answers[1]}) > 1
    return model, processor, prompts, ends, answers


@HIDDEN
@pytest.mark.parametrize("name", HOSTILE)
def test_greedy_answers_do_not_depend_on_the_generation_config(parts, name):
    model, processor, prompts, ends, answers = parts
    model.generation_config = GenerationConfig(**ends)
    for key, value in HOSTILE[name].items():  # a checkpoint may hold what the class refuses
        setattr(model.generation_config, key, value)
    before = model.generation_config.to_dict()
    for beams, expected in answers.items():
        decoding = Decoding(max_new_tokens=6, num_beams=beams)
        assert generate(model, processor, prompts, decoding) == expected
    assert model.generation_config.to_dict() == before  # saved again as it was


def test_sampling_takes_the_profiles_settings_and_no_top_k(parts):
    model, processor, prompts, ends, _ = parts
    decoding = Decoding(max_new_tokens=6, temperature=1.3)
    model.generation_config = GenerationConfig(**ends)
    expected = generate(model, processor, prompts, decoding, batch_size=1)
    model.generation_config = GenerationConfig(top_k=1, temperature=0.1, min_p=0.9, **ends)
    assert generate(model, processor, prompts, decoding, batch_size=1) == expected


def test_a_checkpoints_end_tokens_end_answers_and_are_recorded(parts):
    model, processor, prompts, ends, answers = parts
    model.generation_config = GenerationConfig(eos_token_id=[ends["eos_token_id"], WORD])
    decoding = Decoding(max_new_tokens=6, min_new_tokens=0)
    record = decoding_record(model.generation_config, processor, decoding)
    assert record["eos_token_id"] == [ends["eos_token_id"], WORD]
    assert not {*record["eos_token_id"]} & {*record["suppress_tokens"]}
    ended = generate(model, processor, prompts, decoding)
    word = processor.tokenizer.decode([WORD])
    for answer, long in zip(ended, answers[1], strict=True):
        assert answer.text == long.text.partition(word)[0].strip()


def test_the_record_is_all_that_generate_gets(parts):
    _, processor, *_ = parts
    record = decoding_record(GenerationConfig(), processor, Decoding(num_beams=3))
    used = neutral_config(record).to_diff_dict()
    used.pop("transformers_version", None)
    assert used == {key: record[key] for key in record.keys() & used.keys()} | {"do_sample": False}
    assert record.keys() - used.keys() == {"temperature", "top_p"}
    sampled = decoding_record(GenerationConfig(), processor, Decoding(temperature=0.7, top_p=0.9))
    config = neutral_config(sampled)
    assert (config.do_sample, config.temperature, config.top_p) == (True, 0.7, 0.9)
    assert config.top_k == 0
