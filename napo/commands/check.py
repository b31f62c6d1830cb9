"""`napo check`: what is missing or wrong before the first GPU hour of a profile is spent.

The check reads everything that the stages will read: the model's files, every row and image, every
benchmark, LoRA's targets, the tools, the machine. It generates and sends nothing. Without a fault
it writes `data/<profile>/check.json`, which opens the pipeline.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, ProcessorMixin

from napo import stages
from napo.benchmarks import amber, judges, module, options, words
from napo.data import fetch, sources
from napo.data.rows import own_responses
from napo.data.source_files import READ_ROWS
from napo.errors import NapoError
from napo.method.layout import row_check
from napo.models import families
from napo.models.conversation import plain, render
from napo.models.load import add_adapter, config_of, load_processor
from napo.models.prompts import mask_token_id, prompt_inputs, response_ids
from napo.noise.labels import ORACLE
from napo.progress import Progress
from napo.stages import launch
from napo.stages.session import Session
from napo.training.run import lora_config
from napo.workspace.files import make_folder, write_json

SHOWN = 5  # examples of each kind of problem
QUICK = 100  # a quick check decodes one image in so many
ROLES = ("USER:", "ASSISTANT:", "Human:", "###")  # words of chat templates, which text may hold


class Finding(NamedTuple):
    """What the check says about one part of a profile, such as "rows".

    `state` is "ok", "note" (worth knowing) or "fault" (the run fails or its results differ).
    """

    state: str
    text: str
    part: str = ""


def report(session: Session, quick: bool = False) -> None:
    """Check a profile, print the findings, and write check.json after a full check.

    Raises:
        NapoError: when there are faults.
    """
    findings = check(session, quick)
    for state, text, part in findings:
        print(f"{state:<5}  {part:<15}  {text}")
    faults = sum(finding.state == "fault" for finding in findings)
    if faults:
        count = f"{faults} fault{'s' * (faults != 1)}"
        raise NapoError(f"{count}; correct them before anything is run.")
    if not quick:
        content = {"findings": [finding._asdict() for finding in findings]}
        write_json(session.workspace.data / "check.json", content)


def check(session: Session, quick: bool = False) -> list[Finding]:
    """Check everything that a profile needs; `quick` decodes only every hundredth image."""
    model, masks, processor = session.profile.model, session.profile.masks, None
    try:
        processor = load_processor(model.location, **model.preprocessing)
        if "mask_token" in (masks.image, masks.text):
            mask_token_id(processor)
        findings = [Finding("ok", f"{model.path} is there.", "model")]
    except NapoError as error:
        findings = [Finding("fault", str(error), "model")]
    benchmarks = session.profile.evaluation.benchmarks
    parts = {
        "downloads": downloads(session),
        "rows": rows(session, processor, quick),
        **{name: benchmark(session, name, quick) for name in benchmarks},
        "labels": labels(session),
        "adapter": adapter(session, processor),
        "tools": tools(session),
        "machine": machine(session),
    }
    for part, of_part in parts.items():
        try:
            for finding in of_part:  # one by one: findings before an error are kept
                findings.append(finding._replace(part=part))
        except NapoError as error:
            findings.append(Finding("fault", str(error), part))
    return findings


def downloads(session: Session) -> Iterator[Finding]:
    """The profile's sources that are not complete."""
    for item in fetch.status(session.profile, session.workspace):
        if item.source.to and item.lacks:  # the model is checked apart
            lacks = ", ".join(item.lacks[:SHOWN])
            hand = ", which also says what to do by hand" if item.source.manual else ""
            call = f"make fetch PROFILE={session.profile.name} YES=1"
            text = f"{item.source.name}: {item} ({lacks}); {call}{hand}."
            yield Finding("fault", text)


def rows(session: Session, processor: ProcessorMixin | None, quick: bool) -> Iterator[Finding]:
    """The preference rows: number, images, texts, lengths."""
    data, folder = session.profile.data, stages.source_folder(session)
    limit = session.profile.training.max_length
    survey = sources.survey(folder, data.count)
    expected = min(data.count or data.expected, data.expected)
    if expected and survey.rows != expected:
        yield Finding("fault", f"{folder} holds {survey.rows} rows where {expected} are expected.")
    problems = list(survey.bad.values())
    special, roles, long = [], [], []  # ids
    row_problem = row_check(processor, limit) if processor else None
    with Progress(survey.rows, "look at the rows") as progress:
        for _, batch in sources.batches(folder, READ_ROWS, data.count):
            for index, row in batch:
                if index in survey.bad:
                    continue
                if not quick or index % QUICK == 0:
                    try:
                        row = sources.decode(row)
                        if row_problem:
                            row_problem(row, own_responses(row))
                    except sources.BadRow as error:
                        problems.append(str(error))
                        continue
                if processor is None:
                    continue
                texts = [row[name] for name in ("question", "chosen", "rejected")]
                if any(plain(processor, text) != text.strip() for text in texts):
                    special.append(row["id"])
                if any(role in row["question"] for role in ROLES):
                    roles.append(row["id"])
                if isinstance(row["image"], Image.Image) and is_long(processor, row, limit):
                    long.append(row["id"])
            progress.advance(len(batch))
    if problems:
        skip = data.bad_rows == "skip"
        state = "note" if skip and len(problems) < survey.rows else "fault"
        end = "they will be left out" if skip else "the build would stop at the first"
        yield Finding(state, f"{len(problems)} rows cannot be used ({end}): {examples(problems)}")
    role_words = f"({', '.join(ROLES)}), which is kept"
    for ids, text in (
        (special, "rows hold a special token, which is taken out"),
        (roles, f"questions hold a word of a chat template {role_words}"),
        (long, f"rows have a response that max_length {limit} cuts short"),
    ):
        if ids:
            yield Finding("note", f"{len(ids)} {text}: ids {examples(ids)}")
    yield Finding("ok", f"{survey.rows - len(problems)} rows can be used.")


def is_long(processor: ProcessorMixin, row: dict[str, Any], limit: int) -> bool:
    """Whether a response of a row ends beyond the limit, in tokens with the prompt."""
    prompt_tokens = len(prompt_inputs(processor, row["question"], row["image"]).ids)
    prompt = render(processor, row["question"], image=True)
    responses = response_ids(processor, prompt, [row["chosen"], row["rejected"]])
    return prompt_tokens + max(map(len, responses)) + 1 > limit


def benchmark(session: Session, name: str, quick: bool) -> Iterator[Finding]:
    """One benchmark: its files, its count, its images."""
    scorer, folder = module(name), stages.benchmarks_folder(session) / name
    if not folder.is_dir():
        raise NapoError(f"{folder} is not there; make fetch says how to get it.")
    asking = options(name, session.profile.evaluation).asking
    requests = scorer.requests(scorer.load(folder), **asking)
    images = {request.image: request for request in requests}
    for request in list(images.values())[:: QUICK if quick else 1]:
        request.open()
    yield Finding("ok", f"{len(requests)} requests about {len(images)} images.")


def labels(session: Session) -> Iterator[Finding]:
    """Whether people have labelled the samples, if the world's truth does not."""
    if session.profile.annotation.annotator == ORACLE:
        return
    names = sorted(stages.everyones_labels(session)["annotator"].unique())
    if names:
        yield Finding("ok", f"The samples were labelled by {', '.join(names)}.")
        return
    samples = session.profile.annotation.samples
    yield Finding(
        "note",
        f"Fig. 4 and the report wait until somebody has labelled {samples} samples, in JupyterLab "
        "once notebook 01 has run (notebooks/02_annotate_noise.ipynb); everything else runs.",
    )


def adapter(session: Session, processor: ProcessorMixin | None) -> Iterator[Finding]:
    """LoRA's targets are layers of the model, if the profile names its own."""
    training = session.profile.training
    if not training.lora_targets or processor is None:  # without one the model is a fault already
        return
    config = config_of(session.profile.model.location)
    with torch.device("meta"), warnings.catch_warnings():  # all layers, and no memory for weights
        warnings.simplefilter("ignore")
        model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
        add_adapter(model, lora_config(training, families.of_config(config)), seed=0)
    yield Finding("ok", f"all LoRA target layers exist: {training.lora_targets}.")


def tools(session: Session) -> Iterator[Finding]:
    """Packages that the profile needs, word lists, and a judge with its rule or key."""
    profile, settings = session.profile, session.profile.evaluation
    if profile.masks.engine == "vllm" and not importlib.util.find_spec("vllm"):
        text = "masks.engine is vllm, which is not installed: pip install vllm, or set it to"
        yield Finding("fault", f"{text} transformers.")
    if profile.training.tune == "qlora" and not importlib.util.find_spec("bitsandbytes"):
        text = "training.tune is qlora, which needs bitsandbytes: pip install bitsandbytes, or set"
        yield Finding("fault", f"{text} it to lora.")
    if settings.extractor == "wordnet":
        words.wordnet()
        yield Finding("ok", "NLTK's tagger and WordNet are there.")
    if "amber" in settings.benchmarks and settings.similarity == "lg":
        amber.similar_words("lg", "")
        yield Finding("ok", "spaCy's en_core_web_lg is there.")
    rule = profile.world.judge_by_truth
    if "mmhal" in settings.benchmarks and settings.judge == "rule" and not rule:
        judges.make(settings, stages.benchmarks_folder(session), None)  # raises, with a remedy
    if settings.judge == "openai" and not os.environ.get("OPENAI_API_KEY"):
        yield Finding("note", "OPENAI_API_KEY is not set; MMHal-Bench will wait for its judge.")


def machine(session: Session) -> Iterator[Finding]:
    """GPUs, how processes share a batch, and free disk."""
    profile, processes = session.profile, launch.processes(session)
    gpus = torch.cuda.device_count()
    text = f"{gpus} GPUs are visible" if gpus else "no GPU is visible"
    state = "ok" if profile.scale == "tiny" or gpus else "note"
    yield Finding(state, f"{text} on this machine.")
    micro = min(profile.training.micro_batch_size, profile.training.batch_size)
    if profile.training.batch_size % (micro * processes):
        yield Finding(
            "fault",
            f"training.batch_size {profile.training.batch_size} is not a multiple of "
            f"micro_batch_size {micro} x {processes} processes; change one of them.",
        )
    strategy = profile.launch.strategy
    if strategy.startswith("zero") and not importlib.util.find_spec("deepspeed"):
        text = f"launch.strategy {strategy} needs DeepSpeed: pip install deepspeed."
        yield Finding("note" if processes == 1 else "fault", text)
    files = [path for path in stages.source_folder(session).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    make_folder(session.workspace.root)
    free = shutil.disk_usage(session.workspace.root).free
    state = "fault" if free < 2 * size else "ok"  # the rows again, and their Arrow copy
    text = f"{free / 1e9:.0f} GB are free; the rows built from {size / 1e9:.1f} GB need twice that"
    yield Finding(state, f"{text}, and each fully tuned run its weights.")


def examples(items: list[str]) -> str:
    """The first items, and the number of the others."""
    more = f" ... and {len(items) - SHOWN} more." if len(items) > SHOWN else ""
    separator = " " if items[0].endswith(".") else ", "
    return separator.join(items[:SHOWN]) + more
