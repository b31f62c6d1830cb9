"""What a profile needs before anything is downloaded: memory a GPU, tokens, FLOPs and hours.

    python -m napo.commands.budget --profile llava-1.5-7b --gpus 8 --gpu-memory 80

Arithmetic on the model's config. `python -m bench.budget_check` holds the memory of ddp on one
device, which a CPU can run, against measured peaks: float32, autocast and bfloat16, full and LoRA;
tests/test_budget.py holds FLOPs against torch's counter. The memory of several GPUs, of zero2,
fsdp2 and qlora, and all hours have not been held against anything.

Units. GB is 10^9 bytes. A run fits if its tensors and 2 GB (CUDA context, cuBLAS, NCCL) stay below
the given memory. A card sold as 80 GB holds 80 GiB, 85.9 GB; what the allocator cannot use of its
pages is not counted.

Lengths. Every row has the mean lengths. A padded batch is as long as its longest row, so ask again
with the longest responses before a run that only just fits. The defaults, 40 tokens of question
with its template and 90 a response with its end token, are guesses, not measured on RLAIF-V.

FLOPs. A weight costs 2 a token forward and 4 backward (2 where frozen), a checkpointed layer 2
more; attention computes all L x L pairs. Hours are FLOPs over GPUs x peak x utilisation. Defaults:
A100 80GB SXM, 312 TFLOP/s dense bfloat16 and 2.039 TB/s (NVIDIA's data sheet). A step of generation
reads the weights once for a batch and the caches of its rows, at that share of the bandwidth; all
responses end at the mean length. The paper's hours are those of Section 4.1, on 8 A100 80GB; what
its generation did in parallel is not known, so one row at a time stands beside this profile's.
"""

from __future__ import annotations

import argparse
import json
import math
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from napo.commands.footprint import RESPONSES, Lengths, Run, Shape, peak, shape_of
from napo.config.profile import Profile, Training, load_profile
from napo.config.settings import TUNES
from napo.errors import NapoError, unknown
from napo.models import families

if TYPE_CHECKING:
    import pandas as pd

STRATEGIES = ("ddp", "zero2", "fsdp2")
PARTS = ("parameters", "gradients", "optimiser", "activations", "logits")
SHARED = "shared prefix: one sequence"
PAPER = {"data": 24.0, "training": 7.0}  # hours, §4.1
GB = 1e9
CONTEXT = 2e9  # bytes
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
MOST = 1_000_000  # of anything that is asked: GPUs, tokens, GB, TFLOP/s, TB/s


@dataclass(frozen=True)
class Load:
    """A row in one pass: lengths of its sequences, positions that get logits, images."""

    sequences: tuple[int, ...]
    vocabulary: int
    images: int


def table(
    profile: str | Profile,
    gpus: int = 8,
    gpu_memory: float = 80,
    **tokens: int,
) -> pd.DataFrame:
    """Memory a GPU in a training step, for every way of tuning and of spreading it.

    Args:
        profile: a profile, its name, or the path of its YAML file.
        gpus: processes, one a GPU.
        gpu_memory: of one GPU, GB (10^9 bytes).
        tokens: mean `question_tokens`, `response_tokens`; `image_tokens`, if not the config's.

    Returns:
        Indexed by `tune` and `strategy`. GB at the worst moment in `parameters`, `gradients`,
        `optimiser`, `activations`, `logits` and their sum `total`; whether it `fits`; the moment
        in `peak`.

    Raises:
        NapoError: for a number out of range, a profile that does not say what the model is, or LoRA
            targets that its language model does not have.
    """
    import pandas as pd

    profile, shape, lengths = describe(profile, **tokens)
    _within_range(gpus=gpus, gpu_memory=gpu_memory)
    rows = []
    for tune, strategy in product(TUNES, STRATEGIES):
        worst = peak(plan(profile, shape, lengths, tune, strategy, gpus))
        held = {name: getattr(worst, name) / GB for name in (*PARTS, "total")}
        fits = worst.total + CONTEXT <= gpu_memory * GB
        rows.append(
            {"tune": tune, "strategy": strategy} | held | {"fits": fits, "peak": worst.peak}
        )
    return pd.DataFrame(rows).set_index(["tune", "strategy"])


def compute(
    profile: str | Profile,
    gpus: int = 8,
    *,
    utilisation: float = 0.4,
    tflops: float = 312,
    bandwidth: float = 2.039,
    **tokens: int,
) -> pd.DataFrame:
    """Tokens, FLOPs and hours of building data and of training, with and without the prefix.

    Args:
        profile: a profile, its name, or the path of its YAML file; its `training.tune` is trained.
        gpus: processes, one a GPU.
        utilisation: share of the peaks that is reached, above 0 and at most 1.
        tflops: peak of one GPU, TFLOP/s.
        bandwidth: of one GPU's memory, TB/s.
        tokens: as in `table`.

    Returns:
        Indexed by `stage` and `way`. For a row of the data `tokens`, `vocabulary` (positions that
        get logits) and `tflop` (of a training step's share, all epochs alike); `hours` of the
        stage; `paper_hours`, the paper's own, on 8 A100 80GB.

    Raises:
        NapoError: for a number out of range, a profile without a number of rows, or as `table`.
    """
    import pandas as pd

    profile, shape, lengths = describe(profile, **tokens)
    _within_range(gpus=gpus, tflops=tflops, bandwidth=bandwidth, utilisation=utilisation)
    if utilisation > 1:
        raise NapoError(f"utilisation is {utilisation}; give a share of the peak, 0.4 for 40 %.")
    count = profile.data.count or profile.data.expected
    if not count:
        raise NapoError(
            f"The profile {profile.name} does not say how many rows there are; set data.count or "
            "data.expected."
        )
    rate, stream = (gpus * utilisation * peak * 1e12 for peak in (tflops, bandwidth))
    passes = count * profile.training.epochs
    kind = profile.training.tune
    targets, rank = _targets(profile, shape, kind), profile.training.lora_r
    known = PAPER if profile.scale == "paper" and profile.paper_model == "7B" else {}
    rows = []

    def add(stage: str, way: str, tokens: int, vocabulary: int, flop: float, hours: float) -> None:
        paper = known.get(stage, float("nan"))
        rows.append((stage, way, tokens, vocabulary, flop / 1e12, hours / 3600, paper))

    for way, load in layouts(lengths).items():
        flop = step_flop(shape, load, kind, shape.adapters(rank, targets), profile.training)
        add("training", way, sum(load.sequences), load.vocabulary, flop, passes * flop / rate)
    load = layouts(lengths)[SHARED]
    flop = sum(forward_flop(shape, load).values())
    add("reference", SHARED, lengths.shared, load.vocabulary, flop, count * flop / rate)
    decoding = profile.masks.decoding
    for batch, beams in ((profile.masks.batch_size, decoding.num_beams), (1, 3)):
        way = f"two responses, {batch} together, beams: {beams}"
        prompt = Load((lengths.prompt,), 1, 1)
        said = Load((lengths.response * beams,), lengths.response * beams, 0)
        first, then = (2 * sum(forward_flop(shape, part).values()) for part in (prompt, said))
        read = 2 * lengths.response * _read_a_token(profile, shape, lengths, batch, beams)
        seconds = count * (first / rate + max(then / rate, read / stream))
        heard = 2 * (lengths.prompt + lengths.response * beams)
        add("data", way, heard, 2 * lengths.response * beams, first + then, seconds)
    columns = ["stage", "way", "tokens", "vocabulary", "tflop", "hours", "paper_hours"]
    return pd.DataFrame(rows, columns=columns).set_index(["stage", "way"])


def layouts(lengths: Lengths) -> dict[str, Load]:
    """What a row costs in each layout: ours, the released code's, and three separate DPO pairs."""
    whole, said = lengths.prompt + lengths.response, RESPONSES * lengths.response
    return {
        SHARED: Load((lengths.shared,), said, 1),
        "released: four padded sequences": Load((whole,) * 4, 4 * whole, 4),
        "three DPO pairs: six sequences": Load((whole,) * 6, 6 * whole, 6),
    }


def forward_flop(shape: Shape, load: Load) -> dict[str, float]:
    """FLOPs of one forward pass over a row, by the part of the model."""
    tokens, squares = sum(load.sequences), sum(length**2 for length in load.sequences)
    return {
        "linear": 2.0 * shape.layers * shape.layer_linear * tokens,
        "attention": 4.0 * shape.layers * shape.heads * shape.head_dim * squares,
        "head": 2.0 * shape.width * shape.vocabulary * load.vocabulary,
        "projector": 2.0 * shape.projector * shape.image_tokens * load.images,
        "vision": shape.vision_flop * load.images,
    }


def step_flop(shape: Shape, load: Load, tune: str, adapters: int, training: Training) -> float:
    """FLOPs of a training step for a row: forward, backward, what is made again, and LoRA's."""
    part = forward_flop(shape, load)
    again = training.gradient_checkpointing * (part["linear"] + part["attention"])
    if tune == "full":
        # Making a layer again stops before its last product, which no gradient needs.
        last = math.prod(shape.linear["down_proj"]) / shape.layer_linear
        again -= training.gradient_checkpointing * part["linear"] * last
        return 3 * sum(part.values()) - 2 * part["vision"] + again
    forward = sum(part.values())
    backward = part["linear"] + 2 * part["attention"] + part["head"]
    adapted = (3 + training.gradient_checkpointing) * 2 * adapters * sum(load.sequences)
    return forward + backward + again + adapted + (forward if tune == "qlora" else 0)


def _read_a_token(
    profile: Profile, shape: Shape, lengths: Lengths, batch: int, beams: int
) -> float:
    """Bytes read for a generated token: a share of the weights, and the caches of its beams."""
    size = BYTES[profile.model.dtype]
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * size
    context = lengths.prompt + lengths.response / 2
    weights = (shape.total - shape.frozen - shape.embedding) * size
    return weights / batch + beams * context * cache


def plan(
    profile: Profile, shape: Shape, lengths: Lengths, tune: str, strategy: str, gpus: int
) -> Run:
    """What a profile's training comes to under a way of tuning and of spreading."""
    training = profile.training
    targets = _targets(profile, shape, tune)
    held = BYTES[profile.model.dtype]
    if tune == "full" and (training.bf16 or strategy == "fsdp2"):
        held = 4  # masters: by napo.training.trainer, by accelerate
    half = training.bf16 or strategy != "ddp"
    weight = 2 if strategy == "zero2" else held
    rows = min(training.micro_batch_size, training.batch_size)
    return Run(
        shape=shape,
        lengths=lengths,
        training=training,
        tune=tune,
        strategy=strategy,
        gpus=gpus,
        attention=profile.model.attention,
        targets=targets,
        trained=shape.adapters(training.lora_r, targets) or shape.total - shape.frozen,
        weight=weight,
        stream=2 if strategy != "ddp" else weight,
        product=2 if half else held,
        rows=rows,
        accumulates=training.batch_size > rows * gpus,
    )


def describe(
    profile: str | Profile,
    question_tokens: int = 40,
    response_tokens: int = 90,
    image_tokens: int = 0,
) -> tuple[Profile, Shape, Lengths]:
    """A profile, its model in numbers, and the lengths, checked."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    _within_range(question_tokens=question_tokens, response_tokens=response_tokens)
    if image_tokens:
        _within_range(image_tokens=image_tokens)
    model = profile.model
    try:
        folder = model.location
    except NapoError:  # a commit that was not fetched: the architecture stands for it
        folder = ""
    there = bool(folder) and (Path(folder) / "config.json").is_file()
    if not there and not model.architecture:
        raise NapoError(
            f"The model of profile {profile.name} is not on this machine, and model.architecture "
            "is empty; put the values of its config.json there."
        )
    shape = shape_of(folder if there else "", json.dumps(model.architecture, sort_keys=True))
    if image_tokens:
        shape = replace(shape, image_tokens=image_tokens)
    if not shape.image_tokens:
        raise NapoError(
            f"The config of profile {profile.name}'s model does not say how many tokens an image "
            "has; give image_tokens."
        )
    return profile, shape, Lengths(shape.image_tokens, question_tokens, response_tokens)


def _targets(profile: Profile, shape: Shape, tune: str) -> tuple[str, ...]:
    """LoRA's linear layers under a way of tuning: the profile's, or all of a layer."""
    if tune == "full":
        return ()
    named = profile.training.lora_targets or families.Family.lora_targets
    targets = tuple(name.strip() for name in named.split(","))
    for name in targets:
        if name not in shape.linear:
            raise unknown("LoRA target", name, shape.linear)
    return targets


def _within_range(**values: float) -> None:
    for name, value in values.items():
        said = f"{name.replace('_', '-')} is {reprlib.repr(value)}"
        if not value > 0:
            raise NapoError(f"{said}; it must be above 0.")
        if value > MOST:
            raise NapoError(f"{said}; give at most {MOST:,}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m napo.commands.budget", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--profile", required=True, help="name or YAML path")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--gpu-memory", type=float, default=80, help="GB (10^9) of one GPU")
    parser.add_argument("--utilisation", type=float, default=0.4, help="share of the peaks")
    parser.add_argument("--tflops", type=float, default=312, help="peak of one GPU (A100: 312)")
    parser.add_argument("--bandwidth", type=float, default=2.039, help="TB/s of one GPU's memory")
    parser.add_argument("--question-tokens", type=int, default=40)
    parser.add_argument("--response-tokens", type=int, default=90)
    given = vars(parser.parse_args(arguments))
    tokens = {name: given.pop(name) for name in ("question_tokens", "response_tokens")}
    profile, gpus, memory = (given.pop(name) for name in ("profile", "gpus", "gpu_memory"))
    try:
        needed = table(profile, gpus, memory, **tokens)
        spent = compute(profile, gpus, **given, **tokens)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    print(f"Memory of each of {gpus} GPUs at the worst moment of a step, GB (10^9 bytes):\n")
    print(
        needed.to_string(float_format="%.3g", formatters={"fits": lambda x: "yes" if x else "no"})
    )
    print(f"\nA row of the data, and all of them at {given['utilisation']:.0%} of the peaks:\n")
    print(spent.to_string(float_format="%.3g", na_rep=""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
