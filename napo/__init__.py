"""napo: a reproduction kit for Noise-Aware Preference Optimization (Zhang et al., CVPR 2025).

The names below can be imported from here; each module is imported when its name is first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "napo.method.losses": (
        "reward_margin", "dpo_loss", "napo_loss", "mae_loss", "robustness_coefficient",
        "dynamic_weights", "pair_weights", "pair_coefficients",
    ),
    "napo.method.other_losses": ("cdpo_loss", "rdpo_loss", "ipo_loss", "drdpo_loss", "ropo_loss"),
    "napo.method.objective": ("Objective", "ObjectiveOutput"),
    "napo.method.tensors": ("LogProbs",),
    "napo.method.logprobs": ("collate", "response_logprobs", "score_reference"),
    "napo.models.load": ("load_model",),
    "napo.models.families": ("Family",),
    "napo.config.contrast": ("Contrast",),
    "napo.config.variants": ("LOSSES", "Loss", "Term", "VARIANTS", "Variant"),
    "napo.config.benchmarks": ("BENCHMARKS", "Benchmark", "Metric", "Ratio"),
    "napo.config.registry": ("register",),
    "napo.benchmarks": ("Request",),
    "napo.training.trainer": ("NaPOConfig", "NaPOTrainer"),
    "napo.errors": ("NapoError",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'napo' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
