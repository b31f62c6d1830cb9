"""vLLM itself on a CPU: its answers and rows are those of the Hugging Face path.

make test-vllm     (in an environment of its own, .venv-vllm)
"""

import json
import os
import time
from dataclasses import replace
from importlib.metadata import packages_distributions, version

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.vllm_parity import hugging_face, masked_prompts, parity
from napo import stages
from napo.config.settings import Decoding
from napo.data.rows import load_rows
from napo.errors import NapoError
from napo.models import vllm
from napo.models.generate import Prompt, generate
from napo.models.load import load_model
from napo.stages.session import open_session

pytestmark = pytest.mark.vllm

ROWS = 32
HEAD, WIDE = 24, 32  # dimensions of a head; vLLM's CPU kernels take 32
# Rotary positions turn dimension i with i + half of a head, so a half keeps its place.
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
HALVES = [*range(HEAD // 2), *range(WIDE // 2, WIDE // 2 + HEAD // 2)]


def wide_heads(config, weights):
    """The same function with heads of 32 dimensions: zeros fill them, scale and angles stay."""
    text = config["text_config"]
    heads, text["head_dim"] = text["num_attention_heads"], WIDE
    theta = text["rope_parameters"]["rope_theta"]
    text["rope_parameters"]["rope_theta"] = theta ** (WIDE / HEAD)
    for name, weight in weights.items():
        part = name.rpartition("self_attn.")[2].removesuffix(".weight")
        if not name.startswith("language_model") or part not in PROJECTIONS:
            continue
        across = weight.T if part == "o_proj" else weight
        padded = torch.zeros(heads, WIDE, across.shape[1])
        places = HALVES if part in ("q_proj", "k_proj") else list(range(HEAD))
        padded[:, places] = across.view(heads, HEAD, -1)
        if part == "q_proj":
            padded *= (WIDE / HEAD) ** 0.5
        padded = padded.flatten(0, 1)
        weights[name] = (padded.T if part == "o_proj" else padded).contiguous()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """Two sessions with equal rows, one for each engine, and the model as vLLM reads it."""
    root = tmp_path_factory.mktemp("vllm")
    shipped = open_session("smoke", str(root)).profile.model.location
    model, processor = load_model(shipped, device="cpu")
    folder = root / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    wide_heads(config, weights)
    tower = "vision_tower."  # the hub's checkpoints have one level more
    weights = {name.replace(tower, f"{tower}vision_model."): weights[name] for name in weights}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    opened = {}
    for engine in ("transformers", "vllm"):
        settings = {
            "extends": "smoke",
            "name": engine,
            "model": {"path": str(folder)},
            "data": {"count": ROWS},
            "masks": {"engine": engine},
        }
        path = root / f"{engine}.yaml"
        path.write_text(json.dumps(settings))
        opened[engine] = open_session(str(path), str(root))
        stages.make_rows(opened[engine])
    return opened


@pytest.fixture(scope="module")
def engine(sessions):
    """What `load_engine` gives, and the seconds that it took."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"  # GiB
    began = time.perf_counter()
    answer, record = vllm.load_engine(sessions["vllm"].profile)
    yield answer, record, time.perf_counter() - began
    answer.args[0].llm_engine.engine_core.shutdown()


@pytest.fixture(scope="module")
def answer(engine):
    return engine[0]


@pytest.fixture(scope="module")
def prompts(sessions):
    return masked_prompts(sessions["vllm"], ROWS)


def test_every_greedy_answer_equals_that_of_the_hugging_face_path(sessions, prompts, engine, show):
    session, (answer, _, start) = sessions["vllm"], engine
    began = time.perf_counter()
    ours = hugging_face(session, prompts)
    between = time.perf_counter()
    theirs = {kind: answer(part, session.profile.masks.decoding) for kind, part in prompts.items()}
    ended = time.perf_counter()
    agreement = {kind: parity(ours[kind], theirs[kind]) for kind in prompts}
    equal = ", ".join(f"{kind} {part['equal']}" for kind, part in agreement.items())
    (name,) = packages_distributions()["vllm"]
    versions = ", ".join(f"{part} {version(part)}" for part in (name, "torch", "transformers"))
    show(
        f"{versions}: greedy answers equal to Hugging Face's, of {ROWS} each: {equal}. "
        f"vLLM: start {start:.0f} s, answers {ended - between:.1f} s; "
        f"Hugging Face: {between - began:.1f} s."
    )
    assert all(part["equal"] == ROWS for part in agreement.values()), agreement


def test_the_rows_equal_those_of_the_hugging_face_path(sessions, engine, monkeypatch):
    monkeypatch.setattr(vllm, "load_engine", lambda profile: engine[:2])
    ours, theirs = (list(load_rows(stages.build_rows(session))) for session in sessions.values())
    assert len(ours) == ROWS and ours == theirs


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_depend_neither_on_order_nor_on_batch(prompts, answer, temperature):
    decoding = Decoding(max_new_tokens=16, temperature=temperature)
    part = prompts["image masked"][:8] + prompts["question masked"][:8]
    part = [replace(prompt, key=f"{prompt.key} {index}") for index, prompt in enumerate(part)]
    together = answer(part, decoding, seed=1)
    assert answer(part[::-1], decoding, seed=1)[::-1] == together
    assert [answer([prompt], decoding, seed=1)[0] for prompt in part] == together


def test_a_prompt_fills_the_positions_and_a_longer_one_is_a_sentence(sessions, prompts, answer):
    model, processor = stages.base_model(sessions["vllm"].profile)
    most, decoding = 512 - 48, Decoding(max_new_tokens=48, min_new_tokens=48)
    image = prompts["neither"][0].image
    others = len(Prompt("is", image).inputs(processor).ids) - 1
    fits, long = (Prompt("is " * (most - others + more), image, key="row 7") for more in (0, 1))
    assert len(fits.inputs(processor).ids) == most
    ours, theirs = generate(model, processor, [fits], decoding), answer([fits], decoding)
    assert theirs == ours and theirs[0].tokens == 48
    with pytest.raises(NapoError, match=r"of row 7 has 465 tokens, .* lower it by 1, or"):
        answer([fits, long], decoding)
