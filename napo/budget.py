"""What a profile needs before anything is downloaded: memory a GPU, tokens, FLOPs and hours.

    python -m napo.budget --profile llava-1.5-7b --gpus 8 --gpu-memory 80

A prediction by arithmetic, from the model's config alone. `bench/budget_check.py` holds the part
that a CPU can run (one process, float32 and bfloat16 autocast, full and LoRA) against the measured
peak of tensor memory. What is assumed:

Units. GB is 10^9 bytes. A card sold as "80 GB" holds 80 GiB, 85.9 GB; a run fits if its tensors and
2 GB (CUDA context, cuBLAS and NCCL buffers) stay below the number that was given, so the difference
is left for what the allocator cannot use.

Lengths. All rows are of the mean lengths that are given; a padded batch is as long as its longest
row, so ask again with the longest responses before a run that only just fits. The defaults, 40
tokens of question with its template and 90 a response with its end token, are guesses of the size
that `bench/engine.py` uses, not measured on RLAIF-V.

Peak. Activations shrink in the backward pass while gradients grow, so the columns of `table` are
what is held at the worst moment of a steady step, which the last column names: "vocabulary" (all
activations, a chunk of logits and their gradients), "layers" (the backward pass of a decoder layer),
"forward" (its end), "update" (the optimiser). Gradients are set to None between steps, and held
throughout where micro-batches are accumulated.

Weights. Full tuning trains the language model and the projector, the vision tower is frozen.
- ddp: parameters, gradients and two AdamW moments in float32, products in bfloat16 by autocast, which
  keeps a bfloat16 copy of a weight for as long as the graph needs it. More than one process adds
  the reducer's buckets, as large as the gradients (gradient_as_bucket_view is off by default).
- zero2 (DeepSpeed, bf16): a whole bfloat16 model; gradients (bfloat16), masters and two moments
  (float32) sharded; the gradients' float32 copy at the update; a bucket of 5e8 gradients.
- fsdp2: float32 shards of all of these; whole in bfloat16 are the layer at work, the next one, and
  the parts outside layers (embedding, output layer, projector).
LoRA: the base in the profile's dtype, frozen; the adapters in float32 (zero2: bfloat16 with masters).
QLoRA: the language model's linear layers in NF4, 4 bits + 8/64 + 32/(64 x 256) of doubly quantised
constants a weight (Dettmers et al. 2023); one weight at a time in the dtype. The reference is cached
log-probs, no second model; qlora passes once more with the adapter off. The sum of qlora and zero2 or
fsdp2 is arithmetic: napo has not run it.

Activations. What autograd saves in a Llama-like layer, tensor by tensor (`_layer`); with checkpointing
one input a layer, and one layer at a time made again. SDPA turns the boolean mask into one of the
products' dtype, (rows, 1, L, L), in every layer; no kernel it chooses for masks of this kind
holds L x L scores a head (the CPU's flash kernel neither). Eager attention does, flex does without.

FLOPs. 2 a weight and token forward, 4 backward (2 where the weight is frozen), 2 more where layers are
checkpointed; attention computes all L x L pairs. Hours: FLOPs over GPUs x peak x utilisation. Peaks:
A100, 312 TFLOP/s dense bfloat16 and 2.039 TB/s (NVIDIA's A100 80GB SXM data sheet). A generated
token reads all weights and the caches of its batch, at the same utilisation of the bandwidth; all
responses of a batch end at the mean length. The paper's hours: Section 4.1, 8 A100 80GB.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.config import Profile, load_profile
from napo.errors import NapoError, unknown

if TYPE_CHECKING:
    import pandas as pd

TUNES = ("full", "lora", "qlora")
STRATEGIES = ("ddp", "zero2", "fsdp2")
PAPER_HOURS = {"data": 24.0, "training": 7.0}  # §4.1
RESPONSES = 4  # chosen, rejected, language-biased, vision-biased
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
CONTEXT_BYTES = 2e9
_BUCKET = 5e8  # DeepSpeed's reduce_bucket_size, elements
_ROOM = 12  # bytes a logit: its log-softmax and the gradient of either; as napo.logprobs has it
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9


@dataclass(frozen=True)
class Shape:
    """A model in numbers; parameters are counted on the meta device, nothing is allocated."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    image_tokens: int  # 0: the config does not say
    vision_tokens: int
    vision_width: int
    vision_layers: int  # that run
    total: int
    vision: int  # frozen in full tuning
    projector: int
    layer: int  # one decoder layer
    layer_linear: int  # its linear layers
    embedding: int
    head: int  # 0 where it is the embedding
    largest: int  # linear layer's weights
    linear: dict[str, tuple[int, int]] = field(hash=False)  # name -> inputs, outputs; of a layer

    @property
    def trained(self) -> int:
        """Parameters of full tuning."""
        return self.total - self.vision

    def adapters(self, rank: int, targets: tuple[str, ...]) -> int:
        """Parameters of LoRA matrices of this rank on the target layers."""
        return self.layers * rank * sum(sum(self.linear[name]) for name in targets)


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a row; a response counts its end token, a question its template."""

    image: int
    question: int = 40
    response: int = 90

    @property
    def prompt(self) -> int:
        """Tokens of image and question."""
        return self.image + self.question

    @property
    def shared(self) -> int:
        """One sequence a row; a response's last token predicts nothing and stays out."""
        return self.prompt + RESPONSES * (self.response - 1)


@dataclass(frozen=True)
class Memory:
    """Bytes a GPU holds at one moment of a step."""

    parameters: float
    gradients: float
    optimiser: float
    activations: float
    logits: float
    moment: str

    @property
    def total(self) -> float:
        """All of them."""
        held = (self.parameters, self.gradients, self.optimiser, self.activations, self.logits)
        return sum(held)


@dataclass(frozen=True)
class _Run:
    """What decides the memory of a run: the bytes of its numbers, and how it is spread."""

    shape: Shape
    tune: str
    strategy: str
    gpus: int
    weight: int  # bytes of a frozen or whole weight
    stream: int  # bytes of a hidden state between layers
    product: int  # bytes of a matrix product's output
    targets: tuple[str, ...]  # of LoRA; empty: full
    rank: int
    rows: int
    length: int  # tokens of a row
    answered: int  # targets of a row
    logits_mb: int
    checkpointing: bool
    attention: str
    accumulates: bool

    @property
    def trained(self) -> int:
        return (
            self.shape.trained
            if self.tune == "full"
            else self.shape.adapters(self.rank, self.targets)
        )

    @property
    def casts(self) -> bool:
        """Whether autocast copies float32 weights."""
        return self.weight > self.product and self.strategy != "fsdp2"

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def table(
    profile: str | Profile,
    gpus: int = 8,
    gpu_memory: float = 80,
    *,
    question_tokens: int = 40,
    response_tokens: int = 90,
    image_tokens: int = 0,
) -> pd.DataFrame:
    """Memory a GPU in a training step, for every way of tuning and spreading.

    Args:
        profile: a profile, its name or its YAML file.
        gpus: processes, one a GPU.
        gpu_memory: of one GPU, GB (10^9 bytes).
        question_tokens: mean tokens of a question with its template.
        response_tokens: mean tokens of a response with its end token.
        image_tokens: visual tokens of an image; 0: as the model's config says.

    Returns:
        A row a pair of `tune` and `strategy` (the index); GB at the worst moment in `parameters`,
        `gradients`, `optimiser`, `activations`, `logits`, `total`; `fits`; the moment in `peak`.

    Raises:
        NapoError: for a number below 1, a profile that names no model shape, or LoRA targets that
            the language model does not have.
    """
    import pandas as pd

    profile, shape, lengths = _read(profile, question_tokens, response_tokens, image_tokens)
    _refuse_small(gpus=gpus, gpu_memory=gpu_memory)
    rows = []
    for tune in TUNES:
        for strategy in STRATEGIES:
            worst = peak(_run(profile, shape, lengths, tune, strategy, gpus))
            rows.append(
                {
                    "tune": tune,
                    "strategy": strategy,
                    **{name: getattr(worst, name) / GB for name in _COLUMNS},
                    "fits": worst.total + CONTEXT_BYTES <= gpu_memory * GB,
                    "peak": worst.moment,
                }
            )
    return pd.DataFrame(rows).set_index(["tune", "strategy"])


_COLUMNS = ("parameters", "gradients", "optimiser", "activations", "logits", "total")


def peak(run: _Run) -> Memory:
    """The moment of a step at which most memory is held."""
    return max(_moments(run), key=lambda memory: memory.total)


def compute(
    profile: str | Profile,
    gpus: int = 8,
    *,
    utilisation: float = 0.4,
    tflops: float = 312,
    bandwidth: float = 2.039,
    question_tokens: int = 40,
    response_tokens: int = 90,
    image_tokens: int = 0,
) -> pd.DataFrame:
    """Tokens, FLOPs and hours of building the data and of training, with and without the prefix.

    Args:
        profile: a profile, its name or its YAML file.
        gpus: processes, one a GPU.
        utilisation: share of the GPU's peak that is reached, in (0, 1].
        tflops: peak of one GPU, TFLOP/s.
        bandwidth: of one GPU's memory, TB/s.
        question_tokens: mean tokens of a question with its template.
        response_tokens: mean tokens of a response with its end token.
        image_tokens: visual tokens of an image; 0: as the model's config says.

    Returns:
        A row a pair of `stage` and `way` (the index): `tokens` and `vocabulary` (positions at which
        all words get a logit) a row of the data, `tflop_forward` of one pass, `tflop` of all that
        is done with the row once (an epoch's step), `hours` of the stage, `paper_hours`.

    Raises:
        NapoError: for a number out of range, or as `table`.
    """
    import pandas as pd

    profile, shape, lengths = _read(profile, question_tokens, response_tokens, image_tokens)
    _refuse_small(gpus=gpus)
    _refuse_nothing(tflops=tflops, bandwidth=bandwidth, utilisation=utilisation)
    if utilisation > 1:
        raise NapoError(f"utilisation is {utilisation}; it is a share of the peak, 0.4 for 40 %.")
    count = profile.data.count or profile.data.expected
    if not count:
        raise NapoError(
            f"The profile {profile.name} has neither data.count nor data.expected, so nobody can "
            "say how long it takes; set data.expected to the number of its rows."
        )
    rate, epochs = gpus * tflops * 1e12 * utilisation, profile.training.epochs
    stream = gpus * bandwidth * 1e12 * utilisation
    frame = []
    for way, passed in _layouts(lengths).items():
        forward = _forward(shape, passed)
        step = _step(profile, shape, passed)
        hours = count * epochs * step / rate / 3600
        frame.append(("training", way, passed.tokens, passed.vocabulary, forward, step, hours))
    ours = next(iter(_layouts(lengths).values()))
    once = _forward(shape, ours)
    scored = count * once / rate / 3600
    frame.append(("reference", "shared prefix", ours.tokens, ours.vocabulary, once, once, scored))
    for way, batch, beams in _generations(profile):
        tokens, forward = (
            2 * (lengths.prompt + beams * lengths.response),
            _generated(shape, lengths, beams),
        )
        reading = _read_bytes(profile, shape, lengths, batch, beams)
        seconds = max(forward / rate, _prefill(shape, lengths) / rate + reading / stream)
        frame.append(
            (
                "data",
                way,
                tokens,
                2 * beams * lengths.response,
                forward,
                forward,
                count * seconds / 3600,
            )
        )
    columns = ["stage", "way", "tokens", "vocabulary", "tflop_forward", "tflop", "hours"]
    result = pd.DataFrame(frame, columns=columns)
    result[["tflop_forward", "tflop"]] /= 1e12
    papers = profile.scale == "paper" and profile.paper_model == "7B"
    result["paper_hours"] = result["stage"].map(PAPER_HOURS if papers else {}).astype(float)
    return result.set_index(["stage", "way"])
