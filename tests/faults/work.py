"""The stages of the processes that the tests kill, each by its public function."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

# Loaded once, in the server that forks the processes: a kill then hits the work.
import accelerate  # noqa: F401
import ipywidgets  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.backends.backend_pdf
import matplotlib.backends.backend_svg  # noqa: F401
import peft  # noqa: F401
import transformers.models.clip.modeling_clip
import transformers.models.llama.modeling_llama
import transformers.models.llava.modeling_llava
import transformers.models.llava.processing_llava  # noqa: F401

from napo import lab, stages
from napo.benchmarks import amber, mmhal, object_halbench, runner, vlind
from napo.errors import NapoError
from napo.icon_world import benchmarks, rows
from napo.lab.annotator import Annotator
from napo.noise.labels import LABELS, read_labels
from napo.noise.separation import separation
from napo.results import figures
from napo.stages.session import Session, open_session
from napo.training import run as training_run

VARIANT = "A1"
PERSON = "kim"


def _label(session: Session) -> None:
    """A person labels the samples one by one, after those that are on the disk."""
    widget = lab.label(session, PERSON)
    path = session.workspace.annotations / f"{PERSON}.csv"
    labelled = len(read_labels(path)) if path.is_file() else 0
    for _ in range(len(widget.items) - labelled):
        widget.label(LABELS[widget.listener.item % len(LABELS)])
        time.sleep(0.01)  # people think


def _figures(session: Session) -> None:
    folder = session.workspace.figures
    curves = figures.loss_curves(qs=[0.1, 0.5, 0.9])
    figures.save(figures.fig3(curves), folder, "fig3", curves)
    margins = stages.margins(session)
    figures.save(figures.fig4(margins), folder, "fig4", margins)
    separation(margins)
    records = stages.records(session, VARIANT)
    steps = figures.per_step(records)
    figures.save(figures.training_curves(records), folder, f"training-{VARIANT}-full", steps)


def _judge(session: Session) -> None:
    """Rate the adapter's answers by the model at OPENAI_BASE_URL."""
    judged = {"benchmarks": ("mmhal",), "judge": "openai", "judge_model": "a-judge"}
    evaluation = session.profile.evaluation.model_copy(update=judged)
    profile = session.profile.model_copy(update={"evaluation": evaluation})
    stages.evaluate(Session(profile, session.workspace), VARIANT, tune="lora")


# In the order of the pipeline: each needs the files of earlier ones.
STAGES: dict[str, Callable[[Session], object]] = {
    "source": stages.make_rows,
    "benchmarks": stages.make_benchmarks,
    "build": stages.build_rows,
    "reference": stages.score_reference,
    "annotate": stages.annotate,
    "label": _label,
    "train full": lambda session: stages.train(session, VARIANT, 0, "full"),
    "train lora": lambda session: stages.train(session, VARIANT, 0, "lora"),
    "evaluate": lambda session: stages.evaluate(session, VARIANT),
    "evaluate base": lambda session: stages.evaluate(session, "base"),
    "judge": _judge,
    "figures": _figures,
    "report": lambda session: stages.write_report(session, stages.all_results(session)),
}


def session_of(profile: str, root: Path) -> Session:
    """The session; small chunks, so that a small benchmark has several."""
    runner.CHUNK = 16
    return open_session(profile, str(root))


def run(
    stage: str, profile: str, root: Path, log: Path, environment: dict[str, str], largest: int = 0
) -> None:
    """Run one stage in a forked process, with its own process group and its output in a log.

    Args:
        stage: one of `STAGES`.
        profile: name or YAML path.
        root: the workspace.
        log: the file of its output.
        environment: additional variables.
        largest: limit for the size of a file, in bytes; 0: none.
    """
    os.setpgid(0, 0)
    os.environ.update(environment)
    with open(log, "ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        STAGES[stage](session_of(profile, root))
    except NapoError as error:
        sys.exit(f"napo: {error}")


# Imported early because they are slow to import, like the libraries above.
LOADED = (training_run, Annotator, amber, mmhal, object_halbench, vlind, benchmarks, rows)
