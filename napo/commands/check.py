"""What is missing or wrong before the first GPU hour of a profile is spent.

    python -m napo.commands.check --profile llava-1.5-7b      (make check PROFILE=llava-1.5-7b)

It reads everything that the stages will read: the model's files, every row and image, every
benchmark, the world's functions, LoRA's targets, the tools, the machine. Nothing is generated and
nothing is sent. Without a fault it writes `data/<profile>/check.json`, and the pipeline goes on.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.noise.labels import ORACLE
from napo.progress import Progress
from napo.workspace.files import make_folder, write_json

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from napo.stages.session import Session

SHOWN = 5  # examples named for each kind of problem
ROLES = ("USER:", "ASSISTANT:", "Human:", "###")  # a template's words, which text may hold too


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        state: "ok", "note" (worth knowing) or "fault" (the run would fail, or be another one).
        text: what was found, a sentence.
    """

    what: str
    state: str
    text: str


def check(session: Session, quick: bool = False) -> list[Finding]:
    """Look at everything a profile needs.

    Args:
        session: the profile and workspace.
        quick: decode every hundredth image only.
    """
    processor, found = None, []
    try:
        processor = _processor(session)
        found.append(Finding("model", "ok", f"{session.profile.model.path} is there."))
    except NapoError as problem:
        found.append(Finding("model", "fault", str(problem)))
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "downloads": lambda: downloads(session),
        "rows": lambda: rows(session, processor, quick),
        **{
            name: lambda name=name: benchmark(session, name, quick)
            for name in session.profile.evaluation.benchmarks
        },
        "labels": lambda: labels(session),
        "world": lambda: world(session),
        "adapter": lambda: adapter(session, processor),
        "tools": lambda: tools(session),
        "machine": lambda: machine(session),
    }
    for what, look in parts.items():
        try:
            for finding in look():
                found.append(finding)
        except NapoError as problem:
            found.append(Finding(what, "fault", str(problem)))
    return found


def _processor(session: Session) -> ProcessorMixin:
    """The model's processor, if it can make the profile's masks."""
    from napo.models.load import load_processor
    from napo.models.prompts import mask_token_id

    settings = session.profile.model
    processor = load_processor(settings.location, image_mode=settings.image_mode)
    if "mask_token" in (session.profile.masks.image, session.profile.masks.text):
        mask_token_id(processor)
    return processor


def downloads(session: Session) -> Iterator[Finding]:
    """What the profile's sources still lack."""
    from napo.data import fetch

    for item in fetch.status(session.profile, session.workspace):
        if item.to and item.state != "complete":  # the model was looked at before
            lacks = f" ({', '.join(item.lacks[:SHOWN])})" if item.lacks else ""
            hand = ", which also says what to do by hand" if item.manual else ""
            yield Finding(item.name, "fault", f"{item}{lacks}: make fetch with YES=1{hand}.")


def rows(session: Session, processor: ProcessorMixin | None, quick: bool) -> Iterator[Finding]:
    """The preference rows: number, texts, images, lengths."""
    from napo import stages
    from napo.data import sources

    data, folder = session.profile.data, stages.source_folder(session)
    known = sources.survey(folder, data.count)
    wanted = min(data.count or data.expected, data.expected)
    if wanted and known.rows != wanted:
        yield Finding(
            "rows", "fault", f"{folder} holds {known.rows} rows where {wanted} are expected."
        )
    problems, special, roles, long = list(known.bad.values()), [], [], []
    with Progress(known.rows, "look at the rows") as progress:
        for _, batch in sources.batches(folder, sources.READ_ROWS, data.count):
            for at, row in batch:
                if at in known.bad:
                    continue
                if not quick or at % 100 == 0:
                    try:
                        row = sources.decode(row)
                    except sources.BadRow as problem:
                        problems.append(str(problem))
                        continue
                if processor is not None:
                    _texts(session, processor, row, special, roles, long)
            progress.advance(len(batch))
    skips = data.bad_rows == "skip"
    if problems:
        consequence = "they will be left out" if skips else "the build would stop at the first"
        yield Finding(
            "rows",
            "note" if skips and len(problems) < known.rows else "fault",
            f"{len(problems)} rows cannot be used ({consequence}): {_some(problems)}",
        )
    if special:
        text = "hold a special token, which is taken out"
        yield Finding("rows", "note", f"{len(special)} rows {text}: ids {_some(special)}")
    if roles:
        text = f"hold a word of a chat template ({', '.join(ROLES)}) and are asked as they are"
        yield Finding("rows", "note", f"{len(roles)} questions {text}: ids {_some(roles)}")
    if long:
        limit = session.profile.training.max_length
        text = f"have a response that max_length {limit} cuts short"
        yield Finding("rows", "note", f"{len(long)} rows {text}: ids {_some(long)}")
    yield Finding("rows", "ok", f"{known.rows - len(problems)} rows can be used.")


def _texts(
    session: Session,
    processor: ProcessorMixin,
    row: dict[str, Any],
    special: list[str],
    roles: list[str],
    long: list[str],
) -> None:
    """What a row's texts are to this model."""
    from PIL import Image

    from napo.models.prompts import plain, prompt_inputs, render, response_ids

    texts = [row[name] for name in ("question", "chosen", "rejected")]
    if any(plain(processor, text) != text.strip() for text in texts):
        special.append(row["id"])
    if any(role in row["question"] for role in ROLES):
        roles.append(row["id"])
    image = row["image"]
    if not isinstance(image, Image.Image):  # not decoded in a quick check
        return
    ids = prompt_inputs(processor, row["question"], image).ids
    prompt = render(processor, row["question"], image=True)
    longest = max(len(answer) for answer in response_ids(processor, prompt, texts[1:]))
    limit = session.profile.training.max_length
    if len(ids) >= limit:
        raise NapoError(
            f"Row {row['id']}: its prompt alone has {len(ids)} tokens, and training.max_length is "
            f"{limit}; raise it or drop the row."
        )
    if len(ids) + longest + 1 > limit:
        long.append(row["id"])


def benchmark(session: Session, name: str, quick: bool) -> Iterator[Finding]:
    """One benchmark: its files, its count, its images."""
    from napo import stages
    from napo.benchmarks import module

    settings = session.profile.evaluation
    scorer, folder = module(name), stages.benchmarks_folder(session) / name
    if not folder.is_dir():
        raise NapoError(f"{folder} is not there; make fetch says how to get it.")
    asked = scorer.requests(scorer.load(folder), **scorer.options(settings).asking)
    images = {request.image: request for request in asked}
    for number, request in enumerate(images.values()):
        if not quick or number % 100 == 0:
            request.open()
    yield Finding(name, "ok", f"{len(asked)} requests about {len(images)} images.")


def tools(session: Session) -> Iterator[Finding]:
    """What the profile needs besides data: packages, and a key for the judge."""
    from napo.benchmarks import amber, words

    profile, settings = session.profile, session.profile.evaluation
    needed = {
        "vllm": (
            profile.masks.engine == "vllm",
            "masks.engine is vllm, which is not installed: {}, or set it to transformers.",
        ),
        "bitsandbytes": (
            profile.training.tune == "qlora",
            "training.tune is qlora, which needs bitsandbytes: {}, or set it to lora.",
        ),
    }
    for package, (wanted, sentence) in needed.items():
        if wanted and not importlib.util.find_spec(package):
            yield Finding("tools", "fault", sentence.format(f"pip install {package}"))
    if settings.extractor == "wordnet":
        words.wordnet()
        yield Finding("tools", "ok", "NLTK's tagger and WordNet are there.")
    if "amber" in settings.benchmarks and settings.similarity == "lg":
        amber.similarity("lg", "")
        yield Finding("tools", "ok", "spaCy's en_core_web_lg is there.")
    if settings.judge == "openai" and not os.environ.get("OPENAI_API_KEY"):
        yield Finding(
            "tools", "note", "OPENAI_API_KEY is not set; MMHal-Bench will wait for its judge."
        )


def world(session: Session) -> Iterator[Finding]:
    """The profile's own callables, imported, and whether one of them judges where one has to."""
    from napo import stages
    from napo.benchmarks import judges

    own, settings = session.profile.world, session.profile.evaluation
    for name in type(own).model_fields:
        try:
            own.function(name)
        except NapoError as problem:
            yield Finding("world", "fault", str(problem))
    if "mmhal" in settings.benchmarks and settings.judge == "rule" and not own.judge_by_truth:
        judges.make(settings, stages.benchmarks_folder(session), None)  # it says what is missing


def adapter(session: Session, processor: ProcessorMixin | None) -> Iterator[Finding]:
    """Whether LoRA's targets, where the profile names its own, are layers of the model."""
    training = session.profile.training
    if not training.lora_targets or processor is None:  # without one the model is a fault already
        return
    import torch
    from transformers import AutoModelForImageTextToText

    from napo.models import families
    from napo.models.load import add_adapter, config_of
    from napo.training.run import lora_config

    config = config_of(session.profile.model.location)
    with torch.device("meta"), warnings.catch_warnings():  # all layers, and no memory for weights
        warnings.simplefilter("ignore")
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        add_adapter(model, lora_config(training, families.of_config(config)), seed=0)
    yield Finding("adapter", "ok", f"LoRA's targets are there: {training.lora_targets}.")


def labels(session: Session) -> Iterator[Finding]:
    """Whether people have labelled the samples, where no truth does."""
    from napo import stages

    if session.profile.annotation.annotator == ORACLE:
        return
    who = sorted(stages.everyones_labels(session)["annotator"].unique())
    if who:
        yield Finding("labels", "ok", f"The samples were labelled by {', '.join(who)}.")
        return
    samples = session.profile.annotation.samples
    yield Finding(
        "labels",
        "note",
        f"Fig. 4 and the report wait until somebody has labelled {samples} samples, in JupyterLab "
        "once notebook 01 has run (notebooks/02_annotate_noise.ipynb); all else goes on.",
    )


def machine(session: Session) -> Iterator[Finding]:
    """GPUs, their launcher, and room on the disk."""
    import torch

    from napo import stages
    from napo.stages import launch

    profile = session.profile
    count = torch.cuda.device_count()
    here = f"{count} GPUs are visible" if count else "no GPU is visible"
    ready = profile.scale == "tiny" or count
    yield Finding("machine", "ok" if ready else "note", f"{here} on this machine.")
    processes = launch.processes(session)
    micro = min(profile.training.micro_batch_size, profile.training.batch_size)
    if profile.training.batch_size % (micro * processes):
        yield Finding(
            "machine",
            "fault",
            f"training.batch_size {profile.training.batch_size} is not a multiple of "
            f"micro_batch_size {micro} x {processes} processes; change one of them.",
        )
    if profile.launch.strategy.startswith("zero") and not importlib.util.find_spec("deepspeed"):
        yield Finding(
            "machine",
            "note" if processes == 1 else "fault",
            f"launch.strategy {profile.launch.strategy} needs DeepSpeed: pip install deepspeed.",
        )
    source = stages.source_folder(session)
    size = sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
    make_folder(session.workspace.root)
    free = shutil.disk_usage(session.workspace.root).free
    state = "fault" if free < 2 * size else "ok"  # the rows again, and their Arrow copy
    text = f"{free / 1e9:.0f} GB are free; the rows built from {size / 1e9:.1f} GB need twice that"
    yield Finding("machine", state, f"{text}, and each fully tuned run its weights.")


def _some(things: list[str]) -> str:
    more = f" ... and {len(things) - SHOWN} more." if len(things) > SHOWN else ""
    joint = " " if things[0].endswith(".") else ", "
    return joint.join(things[:SHOWN]) + more


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 without a fault."""
    from napo.stages.session import open_session

    parser = argparse.ArgumentParser(prog="python -m napo.commands.check", description=__doc__)
    parser.add_argument("--profile", default="tiny", help="name or YAML path (default: tiny)")
    parser.add_argument("--workspace", default="", help="folder (default: the checkout)")
    parser.add_argument("--quick", action="store_true", help="decode every hundredth image only")
    given = parser.parse_args(arguments)
    try:
        made = open_session(given.profile, given.workspace)
        findings = check(made, given.quick)
    except NapoError as error:
        print(f"napo: {error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(f"{finding.state:<5}  {finding.what:<15}  {finding.text}")
    faults = sum(finding.state == "fault" for finding in findings)
    if faults:
        print(f"napo: {faults} faults; correct them before anything is run.", file=sys.stderr)
        return 1
    if not given.quick:
        report = {"findings": [asdict(finding) for finding in findings]}
        write_json(made.workspace.data / "check.json", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
