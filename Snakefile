# The whole reproduction: one rule for each notebook, each a papermill call; and the noise study,
# whose cells are trained by commands.
#
# `napo reproduce` and `napo study` run it. They compare finished folders with the profile
# (napo/stages/plan.py, napo/stages/study.py), and pass what is out of date in `again`. Times of
# files decide nothing.
import re
from pathlib import Path
from shlex import quote

from napo.config.profile import edition, load_profile, seeds, study_edition
from napo.config.runs import trained
from napo.config.settings import TUNES
from napo.config.study import FIGURES as STUDY_FIGURES
from napo.config.variants import VARIANTS as ENTRIES
from napo.errors import unknown

KNOWN = ("profile", "workspace", "seeds", "tune", "variants", "figures4", "again", "study", "grid",
         "study_seeds")
for name in config:
    if name not in KNOWN:
        raise unknown("config", name, KNOWN)
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


VARIANTS = config.get("variants", settings.variants)
RESULTS = [f"{DATA}/results/base/manifest.json"]
DECODINGS = [name for name in VARIANTS if not trained(name)]  # of the base model: a result each
EVERY = [run for name in VARIANTS for run in ([name] if name in DECODINGS else runs(name))]
RESULTS += [f"{DATA}/results/{run}/manifest.json" for run in EVERY]
FIGURES4 = config.get("figures4", {"fig4": ""})  # name -> annotator; none until samples are labelled
LABELLED = [f"{DATA}/annotations/manifest.json"] if "fig4" in FIGURES4 else []
AGAIN = config.get("again", [])
TRAINED, EVALUATED = (
    [f"{DATA}/{kind}/{run}/manifest.json" for run in runs("{variant}")]
    for kind in ("runs", "results")
)


def drawn(*names):
    return [f"{FIGURES}/{name}.{kind}" for name in names for kind in ("pdf", "svg", "png", "csv")]


def pending(*paths):
    """The inputs of a rule that have to be made. One that exists is finished."""

    def inputs(wildcards):
        named = [path.format(**dict(wildcards.items())) for path in paths]
        return [path for path in named if path in AGAIN or not Path(path).exists()]

    return inputs


TABLES = [f"table{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("csv", "md", "tex")]
REPORT = [
    f"{DATA}/{edition(settings, 'tables', SEEDS, TUNE)}/{name}"
    for name in ("manifest.json", "report.html", *TABLES)
]
REPORT += drawn(edition(settings, "comparison", SEEDS, TUNE))


def word(text):
    """A text as one word of a shell command, with braces doubled for Snakemake."""
    return quote(str(text)).replace("{", "{{").replace("}", "}}")


# The executed notebook is the log: Snakemake keeps and names it when a job fails.
PAPERMILL = (
    f"papermill {word(NOTEBOOKS)}/{{params.notebook}}.ipynb {{log:q}} --log-output"
    f" --no-progress-bar -k python3 -r profile {word(PROFILE)} -r workspace . "
)
TUNED = f"-r seeds {word(SEEDS)} -r tune {word(TUNE)}"

# All outputs are `update(...)`: Snakemake would delete others before their job runs again. An output
# that exists is complete; its stage keeps or replaces it, depending on the settings.
wildcard_constraints:
    variant="[^/]+",
    by="(-by-.+)?",


# The profile's world makes rows and benchmarks. Downloads were checked before this file is read.
MADE = [f"{DATA}/source/manifest.json", f"{DATA}/benchmarks/manifest.json"]
ROWS, BENCHMARKS = ([path] if settings.world.make_rows else [] for path in MADE)


# Files for the reader. A deleted one is made again. Weights and rows are not in the list, so
# deleting them to save space starts no training.
rule all:
    localrule: True
    input:
        pending(*REPORT, *RESULTS, *LABELLED, *drawn("fig3", "fig3-column", *FIGURES4)),


rule report:
    input:
        pending(*BENCHMARKS, *RESULTS, *drawn("fig3", *FIGURES4)),
    output:
        update(REPORT),
    log:
        f"{DATA}/notebooks/{edition(settings, '07_results', SEEDS, TUNE)}.ipynb",
    params:
        notebook="07_results",
    shell:
        PAPERMILL + TUNED


if settings.world.make_rows:

    rule icon_world:
        output:
            update(MADE),
        log:
            DATA + "/notebooks/00_icon_world.ipynb",
        params:
            notebook="00_icon_world",
        shell:
            PAPERMILL + "-p pretrain False -p seed 0 -p threads 1"


rule build_biased_data:
    input:
        pending(*ROWS),
    output:
        update(DATA + "/rows/manifest.json"),
        update(DATA + "/reference/current.json"),
    log:
        DATA + "/notebooks/01_build_biased_data.ipynb",
    params:
        notebook="01_build_biased_data",
    shell:
        PAPERMILL


rule annotate_noise:
    input:
        pending(DATA + "/rows/manifest.json"),
    output:
        update(DATA + "/annotations/manifest.json"),
    log:
        DATA + "/notebooks/02_annotate_noise.ipynb",
    params:
        notebook="02_annotate_noise",
    shell:
        PAPERMILL + "-r annotator '' -p interactive False"


rule loss_curves:
    output:
        update(drawn("fig3", "fig3-column")),
    log:
        DATA + "/notebooks/03_loss_curves.ipynb",
    params:
        notebook="03_loss_curves",
    shell:
        PAPERMILL + "-r qs ''"


# Notebook 02 goes first: notebook 04 labels what nobody labelled, and the folder's record names the
# notebook that made it.
rule margin_distributions:
    input:
        pending(DATA + "/rows/manifest.json", DATA + "/reference/current.json", *LABELLED),
    output:
        update(drawn("fig4{by}")),
    log:
        DATA + "/notebooks/04_margin_distributions{by}.ipynb",
    params:
        notebook="04_margin_distributions",
        annotator=lambda wildcards: quote(FIGURES4[f"fig4{wildcards.by}"]),
    shell:
        PAPERMILL + "-r annotator {params.annotator}"


def training_inputs(wildcards):
    """Rows and reference, and for a variant whose q comes from labels also these."""
    needed = [DATA + "/rows/manifest.json", DATA + "/reference/current.json"]
    needed += LABELLED if ENTRIES[wildcards.variant].q_rule == "posterior" else []
    return pending(*needed)(wildcards)


# Training goes first, so that no core waits at the end for a run that begins late.
rule train:
    priority: 1
    input:
        training_inputs,
    output:
        update(TRAINED),
    log:
        DATA + "/notebooks/05_train-{variant}" + SUFFIX + ".ipynb",
    params:
        notebook="05_train",
    shell:
        PAPERMILL + "-r variant {wildcards.variant:q} " + TUNED


rule evaluate:
    input:
        pending(*BENCHMARKS, *TRAINED),
    output:
        update(EVALUATED),
    log:
        DATA + "/notebooks/06_evaluate-{variant}" + SUFFIX + ".ipynb",
    params:
        notebook="06_evaluate",
    shell:
        PAPERMILL + "-r variant {wildcards.variant:q} " + TUNED + " -r model '' -p dry_run False"


rule evaluate_base:
    input:
        pending(*BENCHMARKS),
    output:
        update(DATA + "/results/base/manifest.json"),
    log:
        DATA + "/notebooks/06_evaluate-base.ipynb",
    params:
        notebook="06_evaluate",
    shell:
        PAPERMILL + "-r variant base -r seeds '' -r tune '' -r model '' -p dry_run False"


# A variant without training: the base model with another decoding.
rule evaluate_decoding:
    wildcard_constraints:
        variant="|".join(map(re.escape, DECODINGS)) or "(?!)",
    input:
        pending(*BENCHMARKS),
    output:
        update(DATA + "/results/{variant}/manifest.json"),
    log:
        DATA + "/notebooks/06_evaluate-{variant}.ipynb",
    params:
        notebook="06_evaluate",
    shell:
        PAPERMILL + "-r variant {wildcards.variant:q} -r seeds '' -r tune '' -r model ''"
        " -p dry_run False"


# The noise study. A job trains the losses of one budget, noise and seed; `study` names those of the
# jobs that are left. Its output says that the job has ended; the cells have folders of their own.
STUDY = config.get("study", {})  # job -> losses with commas between them
GRID, STUDY_SEEDS = config.get("grid", ""), str(config.get("study_seeds", ""))
SUMMARY = [f"{DATA}/study/{study_edition(settings, 'summary', GRID, STUDY_SEEDS)}/manifest.json"]
SUMMARY += drawn(*(study_edition(settings, name, GRID, STUDY_SEEDS) for name in STUDY_FIGURES))
VLIND = BENCHMARKS if settings.study.instances and "vlind" in settings.evaluation.benchmarks else []
# -P: the workspace, where jobs run, may hold another napo.
COMMAND = f"python -P -m napo {{params.command}} --profile {word(PROFILE)} --workspace . "


rule study:
    localrule: True
    input:
        pending(*SUMMARY),


rule study_pairs:
    output:
        update(DATA + "/study/pairs/manifest.json"),
    log:
        DATA + "/study/jobs/pairs.log",
    params:
        command="study-pairs",
    shell:
        COMMAND + "2> {log:q}"


rule study_cells:
    wildcard_constraints:
        job=".+/seed-[0-9]+",
    input:
        pending(DATA + "/study/pairs/manifest.json", *VLIND),
    output:
        update(DATA + "/study/jobs/{job}.json"),
    log:
        DATA + "/study/jobs/{job}.log",
    params:
        command="study-job",
        losses=lambda wildcards: STUDY[wildcards.job],
    shell:
        COMMAND + "{wildcards.job:q} --losses {params.losses} 2> {log:q}"


rule study_summary:
    input:
        pending(*(f"{DATA}/study/jobs/{job}.json" for job in STUDY)),
    output:
        update(SUMMARY),
    log:
        f"{DATA}/notebooks/{study_edition(settings, '08_noise_study', GRID, STUDY_SEEDS)}.ipynb",
    params:
        notebook="08_noise_study",
    shell:
        PAPERMILL + f"-r grid {word(GRID)} -r seeds {word(STUDY_SEEDS)}"
