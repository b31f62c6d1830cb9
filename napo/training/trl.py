"""This package's losses in TRL: `DPOTrainer` with any objective on two responses.

    from napo.training.trl import ObjectiveDPOTrainer

    trainer = ObjectiveDPOTrainer(model, args=DPOConfig(beta=0.1), train_dataset=rows)   # NaPO
    trainer = ObjectiveDPOTrainer(..., objective=Objective(VARIANTS["dpo"]))

Only the loss is replaced; data, collator, reference and logging are TRL's. It overrides the private
`_compute_loss` and is tested with the TRL version of `requirements.lock`.

TRL cuts the end of a sequence longer than `max_length`. A pair that this leaves without tokens is
left out of loss, q and gamma, and a warning says so once. A batch without any pair has loss 0.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from trl import DPOTrainer

from napo.config.variants import Term, Variant
from napo.errors import NapoError
from napo.method.losses import wide
from napo.method.objective import Objective
from napo.method.tensors import LogProbs

PAIR = ("chosen", "rejected")


class ObjectiveDPOTrainer(DPOTrainer):
    """TRL's `DPOTrainer` that minimises an objective of this kit.

    Args:
        args, kwargs: as for `trl.DPOTrainer`.
        objective: its terms use the responses "chosen" and "rejected". Default: NaPO with psi_sum
            and alpha 0.01 (Eqs. 9 and 12, §4.1) and TRL's beta.

    Raises:
        NapoError: if the objective needs another response, TRL's settings choose another loss
            (`loss_type`, `use_weighting`, `ld_alpha`, `f_divergence_type`), or a loss is not
            finite; Trainer would log it as 0.
    """

    empty_pairs_reported = False

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        default = Objective(Variant("trl", (Term("rejected", "napo"),), "none"), beta=self.beta)
        self.objective = objective or default
        if other := set(self.objective.responses) - set(PAIR):
            raise NapoError(
                f"TRL scores chosen and rejected only, and this objective needs {min(other)}; "
                "train it with napo.training.trainer.NaPOTrainer."
            )
        defaults = {
            "loss_types": ["sigmoid"],
            "ld_alpha": None,
            "use_weighting": False,
            "f_divergence_type": "reverse_kl",
        }
        for name, value in defaults.items():
            if getattr(self, name) != value:
                setting = name.replace("loss_types", "loss_type")
                raise NapoError(f"{setting} changes TRL's own loss; leave it out of DPOConfig.")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        completion = inputs["completion_mask"]
        others = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")
        model_inputs = {key: value for key, value in inputs.items() if key not in others}
        labels = inputs["input_ids"].masked_fill(completion == 0, -100)
        outputs = model(**model_inputs, use_cache=False, labels=labels, fused_lm_head=True)
        scored = completion[:, 1:]
        sums = wide(outputs.log_probs[:, -scored.size(1) :]).sum(dim=1)
        if self.precompute_ref_logps:
            base = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        else:
            base = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        tokens = torch.stack(scored.sum(dim=1).chunk(2), dim=1)
        policy_sums, base_sums = torch.stack(sums.chunk(2), dim=1), torch.stack(base, dim=1)
        kept = (tokens > 0).all(dim=1)
        some = bool(kept.any())
        if some:
            policy_sums, base_sums, tokens = policy_sums[kept], base_sums[kept], tokens[kept]
        else:  # the objective still runs at margin 0, because all processes average q together
            policy_sums, base_sums, tokens = 0 * policy_sums, 0 * base_sums, tokens.clamp(1, 1)
        policy = LogProbs(policy_sums, tokens, PAIR)
        reference = LogProbs(base_sums, tokens, PAIR)
        step, steps = self.state.global_step, self.state.max_steps
        progress = step / max(1, steps)  # for weights of pairs, by the spread of their own batch
        output = self.objective(policy, reference, step=step, progress=progress)
        loss = output.loss if some else 0 * output.loss
        if not loss.isfinite():
            raise NapoError(
                f"The loss is not finite at step {self.state.global_step}; lower the learning rate "
                "or beta, or use a longer warm-up."
            )
        if not (kept.all() or self.empty_pairs_reported):
            self.empty_pairs_reported = True
            logging.getLogger("napo").warning(
                "%d of a batch's %d pairs have a response without tokens under max_length %s. Such "
                "pairs are left out of loss, q and gamma. Raise max_length, or drop rows with long "
                "prompts. This is said once.",
                int((~kept).sum()), len(kept), self.args.max_length,
            )  # fmt: skip
        mode = "train" if self.model.training else "eval"
        for name, value in output.records.items():
            averaged = self.accelerator.gather_for_metrics(value.float().mean()).mean()
            if some:
                self._metrics[mode][f"napo/{name}"].append(averaged.item())
        return (loss, outputs) if return_outputs else loss
