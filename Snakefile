# The whole reproduction: one rule for each notebook, each a papermill call.
#
#   snakemake -n                                   the plan
#   snakemake --cores 2 --nolock --rerun-incomplete --keep-incomplete
#                                                  run it (`napo reproduce` also shows progress)
#   snakemake ... --config profile=smoke workspace=/some/folder
#   snakemake ... --workflow-profile napo/commands/snakemake/slurm    GPUs, memory and time of each rule
from pathlib import Path
from shlex import quote

from napo.config.profile import edition, load_profile, seeds
from napo.errors import unknown
from napo.config.settings import TUNES
from napo.workspace.files import fingerprint

for name in config:
    if name not in ("profile", "workspace", "seeds", "tune", "baselines"):
        raise unknown("config", name, ("profile", "workspace", "seeds", "tune", "baselines"))
PROFILE = config.get("profile", "tiny")
settings = load_profile(PROFILE)
workdir: config.get("workspace", workflow.basedir)

DATA = f"data/{settings.name}"
FIGURES = f"figures/{settings.name}"
NOTEBOOKS = f"{workflow.basedir}/notebooks"
TUNE = config.get("tune", settings.training.tune)
if TUNE not in TUNES:
    raise unknown("tune", TUNE, TUNES)
SUFFIX = "" if TUNE == "full" else f"-{TUNE}"
SEEDS = str(config.get("seeds", settings.seeds))


def runs(variant):
    return [f"{variant}{SUFFIX}/seed-{seed}" for seed in seeds(SEEDS)]


def finished(variant):
    return all(Path(DATA, "results", run, "manifest.json").is_file() for run in runs(variant))


# Baselines are trained on request (`make baselines`). Finished ones stay in the report.
BASELINES = [v for v in settings.baselines if config.get("baselines") or finished(v)]
RUNS = [run for variant in (*settings.variants, *BASELINES) for run in runs(variant)]
TRAINED, EVALUATED = (
    [f"{DATA}/{kind}/{run}/manifest.json" for run in runs("{variant}")]
    for kind in ("runs", "results")
)


def drawn(*names):
    return [f"{FIGURES}/{name}.{kind}" for name in names for kind in ("pdf", "svg", "png", "csv")]


TABLES = [f"table{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("csv", "md", "tex")]
REPORT = [
    f"{DATA}/{edition(settings, 'tables', SEEDS, TUNE)}/{name}"
    for name in ("manifest.json", "report.html", *TABLES)
]
REPORT += drawn(edition(settings, "comparison", SEEDS, TUNE))


def of(*sections):
    """A hash of the profile's sections that a rule depends on; if they change, the rule reruns."""
    return fingerprint(settings.model_dump(include={"world", "model", *sections}))


def word(text):
    """A text as one word of a shell command, with braces doubled for Snakemake."""
    return quote(str(text)).replace("{", "{{").replace("}", "}}")


# The executed notebook is the log: Snakemake keeps and names it when a job fails.
PAPERMILL = (
    f"papermill {word(NOTEBOOKS)}/{{params.notebook}}.ipynb {{log:q}} --log-output"
    f" --no-progress-bar -p profile {word(PROFILE)} -p workspace . "
)
TUNED = f"-p seeds {word(SEEDS)} -p tune {word(TUNE)}"

# All outputs are `update(...)`: Snakemake would delete others before their job runs again. An output
# that exists is complete; its stage keeps or replaces it, depending on the settings.
wildcard_constraints:
    variant="[^/]+",


# Files for the reader. A deleted one is made again. Weights and rows are not in the list, so
# deleting them to save space starts no training.
rule all:
    localrule: True
    input:
        REPORT,
        expand(DATA + "/results/{run}/manifest.json", run=["base", *RUNS]),
        drawn("fig3", "fig3-column", "fig4", "fig4-column"),


rule report:
    input:
        expand(DATA + "/results/{run}/manifest.json", run=["base", *RUNS]),
        expand(FIGURES + "/fig{n}.png", n=[3, 4]),
    output:
        update(REPORT),
    log:
        f"{DATA}/notebooks/{edition(settings, '07_results', SEEDS, TUNE)}.ipynb",
    params:
        notebook="07_results",
        settings=fingerprint(settings.model_dump()),
    shell:
        PAPERMILL + TUNED


# The profile's world makes rows and benchmarks, or they are downloaded and checked.
MADE = [f"{DATA}/source/manifest.json", f"{DATA}/benchmarks/manifest.json"]
ROWS, BENCHMARKS = MADE if settings.world.make_rows else [f"{DATA}/check.json"] * 2

if settings.world.make_rows:

    rule icon_world:
        output:
            update(MADE),
        log:
            DATA + "/notebooks/00_icon_world.ipynb",
        params:
            notebook="00_icon_world",
            settings=of("data", "evaluation"),
        shell:
            PAPERMILL

else:

    rule check:
        output:
            ROWS,
        params:
            settings=of("data", "evaluation"),
        shell:
            f"python -m napo check --profile {word(PROFILE)} --workspace ."


rule build_biased_data:
    input:
        ROWS,
    output:
        update(DATA + "/rows/manifest.json"),
        update(DATA + "/reference/current.json"),
    log:
        DATA + "/notebooks/01_build_biased_data.ipynb",
    params:
        notebook="01_build_biased_data",
        settings=of("data", "masks"),
    shell:
        PAPERMILL


rule annotate_noise:
    input:
        DATA + "/rows/manifest.json",
    output:
        update(DATA + "/annotations/manifest.json"),
    log:
        DATA + "/notebooks/02_annotate_noise.ipynb",
    params:
        notebook="02_annotate_noise",
        settings=of("annotation"),
    shell:
        PAPERMILL


rule loss_curves:
    output:
        update(drawn("fig3", "fig3-column")),
    log:
        DATA + "/notebooks/03_loss_curves.ipynb",
    params:
        notebook="03_loss_curves",
    shell:
        PAPERMILL


rule margin_distributions:
    input:
        DATA + "/reference/current.json",
        DATA + "/annotations/manifest.json",
    output:
        update(drawn("fig4", "fig4-column")),
    log:
        DATA + "/notebooks/04_margin_distributions.ipynb",
    params:
        notebook="04_margin_distributions",
    shell:
        PAPERMILL


rule train:
    input:
        DATA + "/rows/manifest.json",
        DATA + "/reference/current.json",
    output:
        update(TRAINED),
    log:
        DATA + "/notebooks/05_train-{variant}" + SUFFIX + ".ipynb",
    params:
        notebook="05_train",
        settings=of("training"),
    shell:
        PAPERMILL + "-p variant {wildcards.variant:q} " + TUNED


rule evaluate:
    input:
        BENCHMARKS,
        TRAINED,
    output:
        update(EVALUATED),
    log:
        DATA + "/notebooks/06_evaluate-{variant}" + SUFFIX + ".ipynb",
    params:
        notebook="06_evaluate",
        settings=of("evaluation"),
    shell:
        PAPERMILL + "-p variant {wildcards.variant:q} " + TUNED


rule evaluate_base:
    input:
        BENCHMARKS,
    output:
        update(DATA + "/results/base/manifest.json"),
    log:
        DATA + "/notebooks/06_evaluate-base.ipynb",
    params:
        notebook="06_evaluate",
        settings=of("evaluation"),
    shell:
        PAPERMILL + "-p variant base"
