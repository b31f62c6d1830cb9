"""The kit's losses for users of TRL: `DPOTrainer` with any two-response objective of this package.

    from napo.training.trl import ObjectiveDPOTrainer

    trainer = ObjectiveDPOTrainer(model, args=DPOConfig(beta=0.1), train_dataset=rows)   # NaPO
    trainer = ObjectiveDPOTrainer(..., objective=Objective(VARIANTS["dpo"]))

Data, collator, reference and logging stay TRL's; only the loss is exchanged. TRL's `_compute_loss`
is not public, so the package is tested with the TRL of `requirements.lock` and says so otherwise.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import DPOTrainer

from napo.config.variants import Term, Variant
from napo.errors import NapoError
from napo.method.objective import Objective
from napo.method.tensors import LogProbs

PAIR = ("chosen", "rejected")
_NOT_THE_MODELS = ("completion_mask", "ref_chosen_logps", "ref_rejected_logps")


class ObjectiveDPOTrainer(DPOTrainer):
    """TRL's `DPOTrainer` that minimises an objective of this kit.

    Args:
        args, kwargs: as for `trl.DPOTrainer`.
        objective: terms about the responses "chosen" and "rejected"; NaPO with psi_sum and alpha
            0.01 (Eqs. 9 and 12, §4.1) and TRL's beta by default.

    Raises:
        NapoError: when the objective needs another response, or TRL's settings ask for a loss of
            its own (`loss_type`, `use_weighting`, `ld_alpha`, `f_divergence_type`).
    """

    def __init__(self, *args: Any, objective: Objective | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        default = Objective(Variant("trl", (Term("rejected", "napo"),), "none"), beta=self.beta)
        self.objective = objective or default
        other = set(self.objective.responses) - set(PAIR)
        if other:
            raise NapoError(
                f"TRL scores chosen and rejected; this objective needs {sorted(other)[0]}: "
                "train it with napo.training.trainer.NaPOTrainer."
            )
        plain = {"ld_alpha": None, "use_weighting": False, "f_divergence_type": "reverse_kl"}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise NapoError(f"{name} is part of TRL's own loss; leave it out of DPOConfig.")
        if self.loss_types != ["sigmoid"]:
            raise NapoError("loss_type is TRL's own loss; leave it out, the objective takes over.")

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        completion = inputs["completion_mask"]
        given = {key: value for key, value in inputs.items() if key not in _NOT_THE_MODELS}
        labels = inputs["input_ids"].masked_fill(completion == 0, -100)
        outputs = model(**given, use_cache=False, labels=labels, fused_lm_head=True)
        scored = completion[:, 1:]
        sums = outputs.log_probs[:, -scored.size(1) :].sum(dim=1)
        if self.precompute_ref_logps:
            base = (inputs["ref_chosen_logps"], inputs["ref_rejected_logps"])
        else:
            base = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        tokens = torch.stack(scored.sum(dim=1).chunk(2), dim=1)
        policy = LogProbs(torch.stack(sums.chunk(2), dim=1), tokens, PAIR)
        reference = LogProbs(torch.stack(base, dim=1), tokens, PAIR)
        output = self.objective(policy, reference, step=self.state.global_step)
        mode = "train" if self.model.training else "eval"
        for name, value in output.records.items():
            averaged = self.accelerator.gather_for_metrics(value.float().mean()).mean()
            self._metrics[mode][f"napo/{name}"].append(averaged.item())
        return (output.loss, outputs) if return_outputs else output.loss
