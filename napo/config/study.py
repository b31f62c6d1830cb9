"""The noise study: its kinds of noise, its losses, one entry each, and its section of a profile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, field_validator

from napo.config.registry import Entry, Registry, register
from napo.config.settings import Settings
from napo.config.values import (
    Count,
    FileName,
    Integer,
    Positive,
    Seed,
    Seeds,
    entry_of,
    matching,
    unique,
)
from napo.config.variants import GAMMA_RULES, OWN_Q_RULES, Term, Variant
from napo.errors import unknown

KINDS = ("flip", "unbiased")  # the pair is swapped; rejected is another right wording of chosen
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the full grid
GRIDS = ("default", "full")
FIGURES = ("study-accuracy", "study-differences", "study-memorised")
FOLDERS = ("jobs", "pairs", "summary")  # of the study, beside those of its budgets


class Noise(NamedTuple):
    """Noise of a known rate: the share `rate` of the training pairs is noisy."""

    kind: str
    rate: float

    @property
    def name(self) -> str:
        """Its name in profiles and folders, such as "flip-0.4"."""
        return f"{self.kind}-{self.rate:g}"

    @classmethod
    def read(cls, name: str) -> Noise:
        """The noise of a name such as "flip-0.4"."""
        kind, _, rate = name.partition("-")
        return cls(kind, float(rate))


@dataclass(frozen=True)
class StudyLoss(Entry):
    """A loss of the study: an objective of one pair, chosen against rejected.

    Attributes:
        name: its name in profiles, folders and figures.
        term: the loss and its numbers.
        title: its name in sentences, such as "NaPO with q by Eq. 12".
        gamma: the rule for the term's weight, as of a `Variant`.
        q_rule: the rule for q, as of a `Variant`; empty: the profile's.
        told: whether `label_smoothing` of the term is the true rate of the noise.
        colour: in figures.
    """

    registry: ClassVar[Registry] = Registry("loss of the study")

    name: str
    term: Term
    title: str
    gamma: str = "none"
    q_rule: str = ""
    told: bool = False
    colour: str = ""

    def __post_init__(self) -> None:
        if self.gamma not in GAMMA_RULES:
            raise unknown("gamma rule", self.gamma, GAMMA_RULES)
        if self.q_rule and self.q_rule not in OWN_Q_RULES:
            raise unknown("q rule", self.q_rule, OWN_Q_RULES)

    def at(self, rate: float) -> Variant:
        """The loss as a variant of training, where the share `rate` of the pairs is noisy."""
        term = replace(self.term, label_smoothing=rate) if self.told else self.term
        return Variant(self.name, (term,), self.gamma, q_rule=self.q_rule, title=self.title)

    def defined(self, rate: float) -> bool:
        """Whether the loss exists at this rate: a known share of 1/2 leaves nothing to learn."""
        return not self.told or rate < 0.5


LOSSES = StudyLoss.registry


def _pair(loss: str, **changes: Any) -> Term:
    """The pair of chosen and rejected under a loss."""
    return Term("rejected", loss, **changes)


for _loss in (
    StudyLoss("dpo", _pair("dpo"), "DPO", colour="#1a1a1a"),
    StudyLoss("napo", _pair("napo"), "NaPO with q by Eq. 12", q_rule="paper", colour="#009E73"),
    StudyLoss(
        "napo-released", _pair("napo"), "NaPO with q as released", q_rule="released",
        colour="#7FD1BA",
    ),
    *(
        StudyLoss(f"q-{q:g}", _pair("napo", q=q), f"NaPO with q = {q:g}", colour=colour)
        for q, colour in (
            (0.1, "#C7E9E1"), (0.2, "#A8DCD0"), (0.3, "#88CEBE"), (0.4, "#69C0AC"),
            (0.5, "#49B39A"), (0.6, "#3A9C85"), (0.7, "#2E8070"), (0.8, "#23645A"),
            (0.9, "#174944"),
        )
    ),
    StudyLoss(
        "pair", _pair("dpo"), "DPO with a weight for each pair", gamma="per-pair",
        colour="#D55E00",
    ),
    StudyLoss(
        "pair-q", _pair("napo"), "NaPO with a q for each pair", q_rule="per-pair",
        colour="#E59A66",
    ),
    StudyLoss(
        "posterior", _pair("napo"), "NaPO with q from 100 labels", q_rule="posterior",
        colour="#8C3E00",
    ),
    StudyLoss("mae", _pair("mae"), "MAE (q = 1)", colour="#E69F00"),
    StudyLoss("cdpo-true", _pair("cdpo"), "cDPO told the true rate", told=True, colour="#882255"),
    StudyLoss("cdpo", _pair("cdpo"), "cDPO told 0.1", colour="#AA4499"),
    StudyLoss("rdpo-true", _pair("rdpo"), "rDPO told the true rate", told=True, colour="#CC79A7"),
    StudyLoss("rdpo", _pair("rdpo"), "rDPO told 0.1", colour="#DDA7C4"),
    StudyLoss("ipo", _pair("ipo"), "IPO", colour="#0072B2"),
    StudyLoss("ropo", _pair("ropo"), "ROPO's loss", colour="#999933"),
    StudyLoss("drdpo", _pair("drdpo"), "Dr. DPO", colour="#332288"),
    StudyLoss("beta-dpo", _pair("beta-dpo"), "β-DPO", colour="#56B4E9"),
):  # fmt: skip
    register(_loss)


class Budget(Settings):
    """How long a run of the study trains."""

    learning_rate: Positive
    epochs: Count


def _possible(name: str) -> str:
    """The name of a noise, if its kind and rate exist."""
    if Noise.read(name).rate > 0.5:
        raise ValueError("a rate of noise is at most 0.5")
    return name


_NOISE = rf"({'|'.join(KINDS)})-(0|0\.\d{{1,4}})"
NoiseName = Annotated[
    str,
    matching(_NOISE, "write a kind of noise and its rate, such as flip-0.4 or unbiased-0.2"),
    AfterValidator(_possible),
]
LossName = Annotated[str, entry_of(LOSSES)]


class Study(Settings):
    """The noise study (`napo study`). Each cell of its grid is a training run."""

    rows: Count = 1000  # training pairs
    held_out: Count = 1000  # clean pairs that accuracy is measured on
    instances: Integer = 300  # of VLind-Bench, for LP and CB; 0: no LP and CB
    seed: Seed = 11  # of the pairs
    seeds: Seeds = "0,1,2,3,4"  # of the cells: which pairs are noisy, and the order of training
    grid: Literal[GRIDS] = "default"  # "full": all kinds, rates, losses and budgets
    # The first budget is that of the default grid: clean DPO ends at a mean psi_sum of 1.5 to 3.
    # The second is a third as long.
    budgets: Annotated[dict[FileName, Budget], Field(min_length=1)] = Field(
        default={
            "long": Budget(learning_rate=3e-4, epochs=6),
            "short": Budget(learning_rate=3e-4, epochs=2),
        }
    )
    noise: Annotated[tuple[NoiseName, ...], Field(min_length=1), AfterValidator(unique)] = (
        *("flip-0", "flip-0.2", "flip-0.4"),
        "unbiased-0.4",
    )
    losses: Annotated[tuple[LossName, ...], Field(min_length=1), AfterValidator(unique)] = (
        *("dpo", "napo", "q-0.5", "mae", "rdpo-true", "ipo", "pair"),
    )

    @field_validator("budgets")
    @classmethod
    def _free(cls, value: dict[str, Budget]) -> dict[str, Budget]:
        for name in value:
            if name.startswith(FOLDERS):
                raise ValueError(f"the folder {name} of the study is taken; rename the budget")
        return value
