"""Training steps that ours is compared with: TRL, the released layout, liger and flash-pref.

The lock does not hold the last two; `make bench` installs them under data/bench. flash-pref has an
environment of its own there, with transformers 4.51, whose image processors are others. So its step
reads the batch that `save_batch` wrote.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workload import model, names, objective, processor, rows

if TYPE_CHECKING:
    from torch import Tensor

BATCH = Path("data/bench/batch.pt")


def step_of(policy: Any, loss: Callable[[], Any]) -> Callable[[], None]:
    """A function that does one step of fused AdamW on the trained parameters."""
    import torch

    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def padded_batch(count: int, negatives: int) -> dict[str, Tensor]:
    """One padded sequence a response, with its own copy of the image: all chosen ones first."""
    import torch
    from torch.nn.functional import pad

    from napo.models.prompts import prompt_inputs

    tool, data = processor(), rows(count, negatives)
    sequences, labels, images = [], [], []
    for name in objective(negatives).responses:
        for row in data:
            prompt = prompt_inputs(tool, row["question"], row["image"]).ids
            answer = tool.tokenizer(row[name], add_special_tokens=False)["input_ids"] + [2]
            sequences.append(prompt + answer)
            labels.append([-100] * len(prompt) + answer)
            images.append(row["image"])
    length = max(map(len, sequences))
    ids = torch.stack([pad(torch.tensor(s), (0, length - len(s))) for s in sequences])
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "pixel_values": tool.image_processor(images=images, return_tensors="pt")["pixel_values"],
        "targets": torch.stack(
            [pad(torch.tensor(t), (0, length - len(t)), value=-100) for t in labels]
        ),
    }


def save_batch(count: int, negatives: int) -> None:
    """Write the padded batch for another version of transformers."""
    import torch

    BATCH.parent.mkdir(parents=True, exist_ok=True)
    torch.save(padded_batch(count, negatives), BATCH)


def padded_step(
    policy: Any, batch: dict[str, Tensor], count: int, negatives: int, share: Any = nullcontext
) -> Callable[[], None]:
    """The step on padded sequences, the logits of all places; `share` wraps the passes."""
    import torch

    from napo.method.tensors import LogProbs

    aim = objective(negatives)
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    after = batch["targets"][:, 1:]
    tokens = (after != -100).sum(1).view(len(aim.responses), count).T

    def logprobs() -> LogProbs:
        with share():
            logits = policy(**inputs, use_cache=False).logits[:, :-1]
        picked = logits.log_softmax(-1).gather(2, after.clamp_min(0).unsqueeze(2)).squeeze(2)
        sums = (picked * (after != -100)).sum(1)
        return LogProbs(sums.view(len(aim.responses), count).T, tokens, aim.responses)

    with torch.no_grad():
        reference = logprobs()
    return step_of(policy, lambda: aim(logprobs(), reference).loss)


def released_step(count: int, negatives: int) -> Callable[[], None]:
    """The step of the released layout."""
    return padded_step(model(), padded_batch(count, negatives), count, negatives)


def flash_pref_step(count: int, negatives: int) -> Callable[[], None]:
    """The released layout inside flash-pref's `shared_prefix`, run by flash-pref's transformers.

    Attention itself is shared only in flash-attn's CUDA kernel. Elsewhere flash-pref shares the
    norms and the feed-forward layers.
    """
    import torch
    from flash_pref import shared_prefix

    policy, batch = model(), torch.load(BATCH, weights_only=True)

    def share() -> Any:
        return shared_prefix(
            policy.language_model,
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            group_size=negatives + 1,
            interleaved=True,
        )

    return padded_step(policy, batch, count, negatives, share)


def liger_step(count: int, negatives: int) -> Callable[[], None]:
    """liger's fused DPO loss on the hidden states of the released layout.

    It takes pairs, so each negative comes with the chosen response. It gets the places of responses
    only, and no reference: it would take the reference's hidden states, not stored log-probs. It is
    not compiled: that takes a minute and saves nothing here.
    """
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss

    policy, batch = model(), padded_batch(count, negatives)
    inputs = {name: value for name, value in batch.items() if name != "targets"}
    # All prompts have the same length here.
    first = int((batch["targets"] != -100).int().argmax(1).min())
    fused = LigerFusedLinearDPOLoss(use_ref_model=False, compiled=False)

    def pairs(values: Tensor) -> Tensor:
        return torch.cat([*[values[:count]] * negatives, values[count:]])

    targets = pairs(batch["targets"][:, first:])

    def loss() -> Any:
        hidden = policy.model(**inputs, use_cache=False).last_hidden_state[:, first - 1 : -1]
        return fused(policy.lm_head.weight, pairs(hidden), targets)[0]

    return step_of(policy, loss)


def trl_step(count: int, negatives: int) -> Any:
    """TRL's step on one row a pair, and its reference pass alone, as two functions."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tool = processor()
    pairs = []
    for row in rows(count, negatives):
        prompt = tool.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [{"type": "image"}, {"type": "text", "text": row["question"]}],
                }
            ],
            add_generation_prompt=True,
        )
        for name in names(negatives):
            texts = {"chosen": row["chosen"], "rejected": row[name]}
            ended = {key: f"{text} </s>" for key, text in texts.items()}
            pairs.append({"prompt": f"<s> {prompt}", "images": [row["image"]], **ended})
    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=len(pairs),
        max_length=None,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    trainer = DPOTrainer(
        model(),
        ref_model=model().eval(),
        args=settings,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tool,
    )
    policy = trainer.model.train()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    step = step_of(policy, lambda: trainer.compute_loss(policy, batch))
    return step, lambda: trainer.compute_ref_log_probs(trainer.ref_model, batch)
