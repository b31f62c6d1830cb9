"""The base model of the icon world: a tiny LLaVA that knows its world and leans on its priors.

The classes are the real ones, only small: `LlavaForConditionalGeneration` with a CLIP tower and a
Llama, `LlavaProcessor`, a fast tokenizer. `napo.icon_world.lessons` pretrains it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napo.config.profile import Decoding, Masks
from napo.icon_world import questions, scenes, truth
from napo.icon_world.examples import MIX
from napo.icon_world.lessons import LESSONS, STEPS
from napo.icon_world.network import build_model, build_processor
from napo.icon_world.targets import measure
from napo.models.generate import Prompt, generate
from napo.progress import Progress

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

CHECKPOINT = Path(__file__).parent / "checkpoint"


def pretrain(
    folder: Path, *, masks: Masks, seed: int = 0, steps: Mapping[str, int] | None = None
) -> pd.DataFrame:
    """Pretrain the base model and write it as a Hugging Face folder, with its log and scores.

    Args:
        folder: gets weights, processor, `training_log.csv`, `scores.csv` and `targets.csv`.
        masks: how biased responses are made, to measure the targets.
        seed: of weights and data.
        steps: of each lesson; a missing name has the number in `STEPS`.

    Returns:
        The log: stage (the lesson), step, loss (mean over the last 25 steps).
    """
    import pandas as pd

    processor = build_processor()
    model = build_model(processor, seed)
    learning, last = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    steps, rows = {**STEPS, **(steps or {})}, []
    with Progress(sum(steps.values()), "pretrain the base model", "steps") as progress:
        for stage, train in LESSONS.items():
            recent: list[float] = []
            # With a generator of its own, a change of the habits leaves the rest as it is.
            rng = last if stage == "habits" else learning
            for step, loss in enumerate(train(model, processor, rng, steps[stage]), 1):
                recent.append(loss)
                progress.advance()
                if step % 25 == 0 or step == steps[stage]:
                    rows.append((stage, step, sum(recent) / len(recent)))
                    recent = []
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    log = pd.DataFrame(rows, columns=["stage", "step", "loss"])
    log.to_csv(folder / "training_log.csv", index=False, float_format="%.5f")
    scores(model, processor).to_csv(folder / "scores.csv", index=False, float_format="%.4f")
    measured = measure(model, processor, masks)
    measured.to_csv(folder / "targets.csv", index=False, float_format="%.4f")
    return log


def scores(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    *,
    count: int = 200,
) -> pd.DataFrame:
    """Accuracy by kind of question, `count` questions each, on two sorts of scenes.

    All things of a typical scene have their typical colour; none of a counterfactual scene has.
    """
    import pandas as pd

    table = {}
    for number, (sort, p_typical) in enumerate((("typical", 1.0), ("counterfactual", 0.0))):
        rng = np.random.default_rng([5, 2, number])
        for kind in MIX:
            shares = {"p_typical": p_typical, "p_belongs": 0.85 if p_typical else 0.4}
            drawn = [scenes.sample(rng, **shares) for _ in range(count)]
            asked = [questions.ask(rng, scene, kind) for scene in drawn]
            images = [scenes.draw(scene, rng) for scene in drawn]
            prompts = [Prompt(q.text, image) for q, image in zip(asked, images, strict=True)]
            answers = generate(model, processor, prompts, Decoding(), batch_size=count)
            right = [
                truth.right(answer.text, question.to_dict(), scene)
                for answer, question, scene in zip(answers, asked, drawn, strict=True)
            ]
            table.setdefault(kind, {"kind": kind})[sort] = sum(right) / count
    return pd.DataFrame(table.values())
