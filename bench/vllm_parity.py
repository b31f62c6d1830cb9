"""How many greedy answers of vLLM equal those of the Hugging Face path.

python -m bench.vllm_parity --profile llava-1.5-7b --rows 32
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence

import torch

from napo import stages
from napo.data import sources
from napo.errors import NapoError
from napo.models.generate import Generated, Prompt, generate
from napo.models.vllm import load_engine
from napo.stages.session import Session, open_session


def masked_prompts(session: Session, rows: int) -> dict[str, list[Prompt]]:
    """The first rows of the source as prompts: image masked, question masked, neither."""
    source, masks = stages.source_folder(session), session.profile.masks
    numbered = [row for _, batch in sources.batches(source, rows, rows) for _, row in batch]
    kinds = {
        "image masked": {"image_mask": masks.image},
        "question masked": {"text_mask": masks.text},
        "neither": {},
    }
    decoded = [sources.decode(row) for row in numbered]
    return {
        kind: [Prompt(row["question"], row["image"], **mask, key=row["id"]) for row in decoded]
        for kind, mask in kinds.items()
    }


def hugging_face(
    session: Session, prompts: Mapping[str, Sequence[Prompt]]
) -> dict[str, list[Generated]]:
    """Answers of the base model in transformers; its memory is free afterwards."""
    masks = session.profile.masks
    model, processor = stages.base_model(session.profile)
    answers = {
        kind: generate(model, processor, part, masks.decoding, batch_size=masks.batch_size)
        for kind, part in prompts.items()
    }
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return answers


def parity(ours: Sequence[Generated], theirs: Sequence[Generated]) -> dict[str, float]:
    """Agreement of two engines' answers to the same prompts.

    Returns:
        The number of `answers`, the number of `equal` texts, and the mean share of characters up to
        the first difference (`common`).
    """
    pairs = [(a.text, b.text) for a, b in zip(ours, theirs, strict=True)]
    common = [len(os.path.commonprefix(pair)) / max(*map(len, pair), 1) for pair in pairs]  # noqa: RUF071
    equal = sum(a == b for a, b in pairs)
    return {"answers": len(pairs), "equal": equal, "common": sum(common) / len(pairs)}


def main() -> int:
    """Answer the same prompts with both engines, greedily, and print how far they agree."""
    parser = argparse.ArgumentParser(prog="python -m bench.vllm_parity", description=__doc__)
    parser.add_argument("--profile", default="llava-1.5-7b", help="name or YAML path")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--rows", type=int, default=32, help="rows of the source")
    options = parser.parse_args()
    try:
        session = open_session(options.profile, options.workspace)
        prompts = masked_prompts(session, options.rows)
        ours = hugging_face(session, prompts)
        answer, _ = load_engine(session.profile)
        for kind, part in prompts.items():
            print(kind, parity(ours[kind], answer(part, session.profile.masks.decoding)))
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
