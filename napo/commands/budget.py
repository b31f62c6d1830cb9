"""Memory, hours and disk of a training run, before anything is downloaded.

Arithmetic on the model's config (`napo.commands.footprint`). Compared with measurements: the memory
of one process under ddp (`python -m bench.budget_check`), FLOPs and disk (tests/commands), for full
and lora. The rest is marked as not measured.

Lengths are means; a padded batch is as long as its longest row, so try the longest responses before
a run that only just fits. The defaults, 40 tokens of question with its template and 90 of response
with its end token, are guesses, not measured on RLAIF-V; `model.system` comes on top. Hours are
FLOPs over GPUs x peak x utilisation, without communication; 312 TFLOP/s is an A100's dense bfloat16
(NVIDIA's data sheet).
"""

from __future__ import annotations

import json
import math
import reprlib
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from napo.commands.footprint import Lengths, Run, Shape
from napo.config.profile import Profile, load_profile
from napo.config.settings import TUNES, Launch
from napo.errors import NapoError, unknown
from napo.models import families

if TYPE_CHECKING:
    import pandas as pd

STRATEGIES = get_args(Launch.model_fields["strategy"].annotation)
REFUSED = ("qlora", "zero3")  # transformers loads no 4-bit model under it
GB = 1e9
CONTEXT = 2e9  # bytes: CUDA context, cuBLAS, NCCL
TOKENS_A_WORD = 1.5  # of model.system: a guess, since no tokenizer is there before the download
MOST = 1_000_000  # GPUs, tokens, GB, TFLOP/s


def table(
    profile: str | Profile,
    gpus: int = 8,
    gpu_memory: float = 80,
    *,
    utilisation: float = 0.4,
    tflops: float = 312,
    **tokens: int,
) -> pd.DataFrame:
    """A training run's memory, hours and disk, for every `tune` and `strategy`.

    Args:
        profile: a profile, its name, or the path of its YAML file.
        gpus: processes, one a GPU.
        gpu_memory: of one GPU, GB (10^9 bytes). A run fits with 2 GB to spare.
        utilisation: share of the GPUs' peak that is reached.
        tflops: peak of one GPU, TFLOP/s.
        tokens: mean `question_tokens`, `response_tokens`; `image_tokens`, if not the config's.

    Returns:
        GB of each GPU at the worst moment of a step, by part and in `total`; whether it `fits`;
        that `worst moment` in words; `hours` of all epochs; GB of the final `weights`, and of
        `disk` during training, for two checkpoints; the quantities that are `not_measured`.
    """
    import pandas as pd

    _check_range(gpus=gpus, gpu_memory=gpu_memory, utilisation=utilisation, tflops=tflops)
    profile, shape, lengths = describe(profile, **tokens)
    count = profile.data.count or profile.data.expected or math.nan
    rate = gpus * utilisation * tflops * 1e12
    rows = []
    for tune, strategy in product(TUNES, STRATEGIES):
        if (tune, strategy) == REFUSED:
            continue
        run = Run(profile, shape, lengths, tune, strategy, gpus)
        worst, (weights, checkpoint) = run.peak(), run.disk()
        moment, fits = worst.pop("worst moment"), worst["total"] + CONTEXT <= gpu_memory * GB
        row = {"tune": tune, "strategy": strategy} | {k: v / GB for k, v in worst.items()}
        row |= {"fits": fits, "worst moment": moment}
        row["hours"] = count * profile.training.epochs * run.flop() / rate / 3600
        row |= {"weights": weights / GB, "disk": 2 * checkpoint / GB}
        compared = strategy == "ddp" and tune != "qlora"
        unknowns = {"memory": not compared or gpus > 1, "hours": True, "disk": not compared}
        row["not_measured"] = ", ".join(name for name in unknowns if unknowns[name])
        rows.append(row)
    return pd.DataFrame(rows).set_index(["tune", "strategy"])


def papers_scale(profile: Profile) -> Profile:
    """The profile, or for a tiny one the paper's own: GB and hours of a tiny run round to 0."""
    name = f"llava-1.5-{profile.paper_model.lower()}"
    return load_profile(name) if profile.scale == "tiny" else profile


def report(profile: str | Profile, gpus: int = 8, gpu_memory: float = 80, **options: float) -> str:
    """`table` as text, with its units."""
    runs = table(profile, gpus, gpu_memory, **options)
    yes_or_no = {"fits": lambda fits: "yes" if fits else "no"}
    return (
        f"Training on {gpus} GPUs of {gpu_memory:g} GB. In GB (10^9 bytes): memory of each GPU at "
        "the worst moment of a step,\nfinal weights, and disk with two checkpoints. not_measured: "
        f"computed, and not compared with a run.\n{' under '.join(REFUSED)} is left out: "
        "transformers does not load it.\n\n"
        + runs.to_string(float_format="%.3g", na_rep="", formatters=yes_or_no)
    )


def describe(
    profile: str | Profile,
    question_tokens: int = 40,
    response_tokens: int = 90,
    image_tokens: int = 0,
) -> tuple[Profile, Shape, Lengths]:
    """A profile, its model in numbers, and the lengths."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    _check_range(question_tokens=question_tokens, response_tokens=response_tokens)
    try:
        folder = profile.model.location
    except NapoError:  # a commit that was not fetched yet
        folder = ""
    here = bool(folder) and (Path(folder) / "config.json").is_file()
    if not here and not profile.model.architecture:
        raise NapoError(
            f"The model of profile {profile.name} is not on this machine, and model.architecture "
            "is empty; put the values of its config.json there."
        )
    shape = _shape(folder if here else "", json.dumps(profile.model.architecture))
    image_tokens = image_tokens or shape.image_tokens
    if not image_tokens:
        raise NapoError(
            f"The config of profile {profile.name}'s model does not say how many tokens an image "
            "has; give image_tokens."
        )
    _check_range(image_tokens=image_tokens)
    system_tokens = math.ceil(TOKENS_A_WORD * len(profile.model.system.split()))
    return profile, shape, Lengths(image_tokens, question_tokens + system_tokens, response_tokens)


@cache
def _shape(folder: str, architecture: str) -> Shape:
    """A model in numbers: of its folder, or else of an architecture in JSON."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        if folder:
            return Shape(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        values = json.loads(architecture)
        kind = values.pop("model_type", "")
        if kind not in families.FAMILIES:
            raise unknown("model_type in model.architecture", kind, families.FAMILIES)
        return Shape(AutoConfig.for_model(kind, **values))
    except (ValueError, TypeError, KeyError, OSError, StrictDataclassError) as error:
        problem = str(error).strip().splitlines()[-1].strip()  # the last line names the value
        raise NapoError(
            f"{folder or 'model.architecture'} does not make a model; correct it: {problem}"
        ) from None


def _check_range(**values: float) -> None:
    for name, value in values.items():
        most = 1 if name == "utilisation" else MOST
        if not 0 < value <= most:
            raise NapoError(
                f"{name.replace('_', '-')} is {reprlib.repr(value)}; give a number above 0 and at "
                f"most {most:,}."
            )
