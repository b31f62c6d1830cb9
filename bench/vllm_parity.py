"""How many greedy answers of vLLM equal those of the Hugging Face path.

python -m bench.vllm_parity --profile llava-1.5-7b --rows 32
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from napo.errors import NapoError
from napo.models.generate import Generated, Prompt
from napo.models.vllm import load_engine


def parity(
    ours: Sequence[Generated], theirs: Sequence[Generated]
) -> Mapping[str, float | int | None]:
    """How far two engines' answers to the same prompts agree.

    Returns:
        `answers`, the share of `equal` texts, and the mean share of characters up to the first
        difference (`common`).
    """
    pairs = list(zip(ours, theirs, strict=True))
    common = [
        len(os.path.commonprefix([a.text, b.text]))  # noqa: RUF071  of characters
        / max(len(a.text), len(b.text), 1)
        for a, b in pairs
    ]
    return {
        "answers": len(pairs),
        "equal": sum(a.text == b.text for a, b in pairs) / len(pairs) if pairs else None,
        "common": sum(common) / len(pairs) if pairs else None,
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line: the same prompts through both engines, greedily."""
    import gc

    import torch

    from napo import stages
    from napo.data import sources
    from napo.models.generate import generate
    from napo.stages.session import open_session

    parser = argparse.ArgumentParser(prog="python -m bench.vllm_parity", description=__doc__)
    parser.add_argument("--profile", default="llava-1.5-7b", help="name or YAML path")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--rows", type=int, default=32, help="rows of the source that are asked")
    given = parser.parse_args(arguments)
    try:
        made = open_session(given.profile, given.workspace)
        masks = made.profile.masks
        rows = [
            sources.decode(row)
            for _, batch in sources.batches(stages.source_folder(made), given.rows, given.rows)
            for _, row in batch
        ]
        prompts = [Prompt(row["question"], row["image"], image_mask=masks.image) for row in rows]
        prompts += [Prompt(row["question"], row["image"], text_mask=masks.text) for row in rows]
        model, processor = stages.base_model(made.profile)
        ours = generate(model, processor, prompts, masks.decoding, batch_size=masks.batch_size)
        del model
        gc.collect()
        torch.cuda.empty_cache()
        print(parity(ours, load_engine(made.profile)(prompts, masks.decoding)))
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
