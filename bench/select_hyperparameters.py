"""Choose the tiny scale's learning rate on the validation split.

    python -m bench.select_hyperparameters

The rule was fixed in advance: train `dpo` and `A2` (one seed that no table uses) at each
setting, and take the setting with the largest mean of LP and CB over the two. One setting serves
all variants, as in the paper. The validation split's scenes, instances and images share nothing
with the benchmarks that the tables report. Writes data/selection/selection-<tune>.csv.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path

import pandas as pd

from napo import stages
from napo.config.profile import Profile, load_profile
from napo.stages.session import Session, open_session
from napo.workspace.files import read_json
from napo.workspace.folders import Workspace

LEARNING_RATES = (3e-5, 6e-5, 1e-4, 3e-4, 6e-4)
EPOCHS = (2,)
VARIANTS = ("dpo", "A2")
SEED = 100  # no table uses it
SIZES = {
    "vlind": 500,
    "object_halbench": 100,
    "amber_generative": 60,
    "amber_discriminative": 60,
    "mmhal": 48,
}


def changed(profile: Profile, name: str, learning_rate: float, epochs: int, tune: str) -> Profile:
    """The profile with another learning rate and the validation benchmarks."""
    rate = "learning_rate" if tune == "full" else "lora_learning_rate"
    training = profile.training.model_copy(update={rate: learning_rate, "epochs": epochs})
    evaluation = profile.evaluation.model_copy(
        update={"sizes": SIZES, "split": "validation", "benchmarks": ("vlind", "object_halbench")}
    )
    return profile.model_copy(update={"name": name, "training": training, "evaluation": evaluation})


def measure(opened: Session, variant: str, tune: str) -> dict[str, float]:
    """Train and evaluate one variant; its validation metrics."""
    if variant != "base":
        stages.train(opened, variant, SEED, tune)
    folder = stages.evaluate(opened, variant, SEED, tune)
    vlind = read_json(folder / "vlind.json")["metrics"]
    objects = read_json(folder / "object_halbench.json")["metrics"]
    return {
        "LP": vlind["d_macro"]["value"],
        "CB": vlind["c"]["value"],
        "CHAIRi": objects["CHAIRi"]["value"],
        "obj_rec": objects["obj_rec"]["value"],
    }


def main() -> None:
    """Run the grid (about three minutes a setting on one core) and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", choices=("full", "lora"), default="full")
    parser.add_argument("--rates", default=",".join(map(str, LEARNING_RATES)))
    parser.add_argument("--epochs", default=",".join(map(str, EPOCHS)))
    arguments = parser.parse_args()
    tiny = load_profile("tiny")
    root = open_session("tiny").workspace.root
    rows = []
    settings = product(
        map(float, arguments.rates.split(",")), map(int, arguments.epochs.split(","))
    )
    for number, (rate, epochs) in enumerate(settings):
        profile = changed(
            tiny, f"selection-{arguments.tune}-{rate:g}-{epochs}", rate, epochs, arguments.tune
        )
        opened = Session(profile, Workspace(root, profile.name))
        for stage in (stages.make_rows, stages.make_benchmarks, stages.build_rows):
            stage(opened)
        stages.score_reference(opened)
        for variant in (("base",) if number == 0 else ()) + VARIANTS:
            metrics = measure(opened, variant, arguments.tune)
            rows.append({"rate": rate, "epochs": epochs, "variant": variant, **metrics})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table["LP+CB"] = table["LP"] + table["CB"]
    out = Path(root) / "data" / "selection"
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / f"selection-{arguments.tune}.csv", index=False)
    print(table.to_string(index=False, float_format="{:.4g}".format))
    trained = table[table["variant"] != "base"]
    print(trained.groupby(["rate", "epochs"])[["LP", "CB", "LP+CB", "obj_rec"]].mean().round(2))


if __name__ == "__main__":
    main()
