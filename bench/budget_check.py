"""The memory that the budget predicts, against the measured peak of real training steps.

    python -m bench.budget_check            all cases, a process each, about six minutes

Each case is a LLaVA with random weights and a profile that describes it. The process does two steps
of the engine (shared-prefix log-probs, the objective, backward, fused AdamW), the second of which
has its optimiser states from the start, and prints the peak of tensor memory: the bytes of all
storages that are alive, followed through every operator, what autograd saves included. Resident
memory would not do: the allocator keeps freed pages and MKL its packing buffers, hundreds of MB
that no GPU has. What a kernel allocates and frees inside itself is not seen; the allocator's own
account (torch.profiler) gave the same peaks, 698 and 655 MB, in the two cases that were compared.

The prediction is `napo.commands.budget.peak` of the same profile, ddp on one device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import weakref
from contextlib import nullcontext
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from napo.commands import budget, footprint
from napo.config.profile import Model, Profile, Training
from napo.method.objective import Objective

TOLERANCE = 0.15
QUESTION = 40
_PATCH = 14
# What a case changes of the first; `side` is the image's, in patches.
BASE: dict[str, Any] = {
    "layers": 6, "width": 512, "feed_forward": 1376, "heads": 8, "kv_heads": 8,
    "vocabulary": 8000, "side": 16, "response": 90, "rows": 2, "tune": "full",
    "checkpointing": False, "bf16": False, "dtype": "float32", "logits_mb": 256,
    "attention": "sdpa",
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "full": {},
    "full, wider": {"width": 1024, "feed_forward": 2752, "layers": 4},
    "full, deeper": {"layers": 14},
    "full, longer": {"response": 240, "layers": 4},
    "full, many words": {"vocabulary": 32_000, "logits_mb": 32, "layers": 4},
    "full, grouped heads": {"kv_heads": 2},
    "full, eager": {"attention": "eager", "layers": 3},
    "full, checkpointed": {"checkpointing": True, "layers": 10},
    "full, checkpointed, longer": {"checkpointing": True, "response": 240, "rows": 3},
    "full, autocast": {"bf16": True},
    "full, autocast, checkpointed": {"bf16": True, "checkpointing": True},
    "full, autocast, many words": {
        "bf16": True, "vocabulary": 32_000, "logits_mb": 32, "layers": 4,
    },
    "full, bfloat16 weights": {"dtype": "bfloat16", "layers": 4},
    "lora": {"tune": "lora", "layers": 8},
    "lora, wider": {"tune": "lora", "width": 1024, "feed_forward": 2752, "layers": 4},
    "lora, checkpointed": {"tune": "lora", "checkpointing": True, "rows": 4, "layers": 10},
    "lora, autocast, bfloat16 base": {"tune": "lora", "bf16": True, "dtype": "bfloat16"},
    "lora, autocast, float32 base": {"tune": "lora", "bf16": True},
    "lora, autocast, checkpointed": {
        "tune": "lora", "bf16": True, "dtype": "bfloat16", "checkpointing": True, "rows": 4,
    },
}  # fmt: skip


def profile(case: dict[str, Any]) -> Profile:
    """The profile of a case: its architecture, and what of training decides memory."""
    architecture = {
        "model_type": "llava",
        "image_token_id": 4,
        "image_seq_length": case["side"] ** 2,
        "vision_feature_layer": -2,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": "llama",
            "vocab_size": case["vocabulary"],
            "hidden_size": case["width"],
            "intermediate_size": case["feed_forward"],
            "num_hidden_layers": case["layers"],
            "num_attention_heads": case["heads"],
            "num_key_value_heads": case["kv_heads"],
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": case["side"] * _PATCH,
            "patch_size": _PATCH,
        },
    }
    training = Training(
        batch_size=case["rows"],
        micro_batch_size=case["rows"],
        gradient_checkpointing=case["checkpointing"],
        bf16=case["bf16"],
        logits_mb=case["logits_mb"],
        lora_r=16,
        lora_alpha=32,
    )
    model = Model(
        path="nowhere",
        dtype=case["dtype"],
        attention=case["attention"],
        architecture=architecture,
    )
    return Profile(name="check", model=model, training=training)


def predicted(case: dict[str, Any]) -> footprint.Memory:
    """What the budget says of a case."""
    settings, shape, lengths = budget.describe(
        profile(case), question_tokens=QUESTION, response_tokens=case["response"]
    )
    return footprint.peak(budget.plan(settings, shape, lengths, case["tune"], "ddp", 1))


class LiveStorages(TorchDispatchMode):
    """Counts the bytes of the storages that operators made and that are still alive.

    Attributes:
        now: bytes alive.
        peak: the most of them so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def watch(self, tensor: Any) -> None:
        """Count a tensor's storage until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operator and count what it returns."""
        import torch
        from torch.utils._pytree import tree_iter

        result = function(*args, **(kwargs or {}))
        for part in tree_iter(result):
            if isinstance(part, torch.Tensor):
                self.watch(part)
        self.peak = max(self.peak, self.now)
        return result


def model(case: dict[str, Any]) -> Any:
    """The random model of a case, prepared for its tuning as `napo.training.trainer` does it."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from napo.models import families
    from napo.models.load import add_adapter, freeze_vision_tower
    from napo.training.run import lora_config

    settings = profile(case)
    values = dict(settings.model.architecture)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config._attn_implementation = case["attention"]
    torch.manual_seed(0)
    whole = case["tune"] == "full" and case["bf16"]  # as train_run has it
    held = torch.float32 if whole else getattr(torch, case["dtype"])
    built = AutoModelForImageTextToText.from_config(config, dtype=held, trust_remote_code=False)
    if case["tune"] == "full":
        freeze_vision_tower(built)
    else:
        lora = lora_config(settings.training, families.of_config(config))
        built = add_adapter(built, lora, 0)
    if case["checkpointing"]:
        built.activation_checkpointing_enable()
    return built.train()


def batch(case: dict[str, Any]) -> Any:
    """Rows of random tokens, all of the case's lengths."""
    import torch

    from napo.config.variants import RESPONSES
    from napo.method.layout import EncodedRow, assemble
    from napo.models.prompts import PromptInputs

    side, generator = case["side"], torch.Generator().manual_seed(0)

    def words(count: int) -> list[int]:
        return torch.randint(5, case["vocabulary"], (count,), generator=generator).tolist()

    rows = []
    for number in range(case["rows"]):
        pixels = torch.rand(1, 3, side * _PATCH, side * _PATCH, generator=generator)
        prompt = PromptInputs([4] * side**2 + words(QUESTION), {"pixel_values": pixels})
        answers = {name: (0, words(case["response"])) for name in RESPONSES}
        rows.append(EncodedRow(str(number), (prompt,), answers))
    return assemble(rows, 0)


def measured(case: dict[str, Any]) -> int:
    """Peak of tensor memory in the second of two training steps, bytes."""
    import torch

    from napo.config.variants import VARIANTS
    from napo.method.logprobs import response_logprobs

    policy, data, aim = model(case), batch(case), Objective(VARIANTS["A1"])
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)
    precision = torch.autocast("cpu", torch.bfloat16) if case["bf16"] else nullcontext()

    def scored() -> Any:
        with precision:
            return response_logprobs(policy, data, logits_mb=case["logits_mb"])

    with torch.no_grad():
        reference = scored()
    live = LiveStorages()
    for tensor in (*policy.parameters(), *policy.buffers()):
        live.watch(tensor)
    with live:
        for _ in range(2):
            live.peak = live.now
            aim(scored(), reference).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return live.peak


def main(arguments: list[str] | None = None) -> int:
    """Print a line a case; 1 if one is further from its prediction than 15 %."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worker", metavar="CASE", help="measure this case here (JSON)")
    given = parser.parse_args(arguments)
    if given.worker:
        import torch

        torch.set_num_threads(1)
        print(measured(BASE | json.loads(given.worker)))
        return 0
    print(f"{'case':32}{'predicted MB':>14}{'measured MB':>13}{'ratio':>7}  predicted peak")
    far = 0
    for name, changes in CASES.items():
        command = [sys.executable, "-m", "bench.budget_check", "--worker", json.dumps(changes)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"The measurement of {name!r} failed:\n{done.stderr[-2000:]}")
        there, found = predicted(BASE | changes), int(done.stdout.split()[-1])
        ratio = there.total / found
        far += abs(ratio - 1) > TOLERANCE
        print(
            f"{name:32}{there.total / 1e6:14.0f}{found / 1e6:13.0f}{ratio:7.2f}  {there.peak}",
            flush=True,
        )
    print(f"{far} of {len(CASES)} are further off than {TOLERANCE:.0%}.")
    return int(far > 0)


if __name__ == "__main__":
    sys.exit(main())
