"""Runs and results of a variant: one for each seed if it is trained, else one of the base model."""

from __future__ import annotations

from collections.abc import Iterable

from napo.config.contrast import Contrast
from napo.config.variants import VARIANTS
from napo.workspace.folders import run_name


def trained(variant: str) -> bool:
    """Whether a variant is trained: not "base", and not one without terms.

    Raises:
        NapoError: for an unknown name.
    """
    return variant != "base" and VARIANTS[variant].trained


def contrast_of(variant: str) -> Contrast | None:
    """The contrast with which a variant decodes the base model; None for all others."""
    return None if variant == "base" else VARIANTS[variant].contrast


def seeds_of(variant: str, seeds: Iterable[int]) -> list[int]:
    """The seeds of a variant's results; what is not trained has one result, of seed 0."""
    return list(seeds) if trained(variant) else [0]


def result_name(variant: str, seed: int, tune: str = "full") -> str:
    """The name of a result: its run's, such as `A1/seed-0`; `base` and `vcd` as they are."""
    return run_name(variant, seed, tune) if trained(variant) else variant
