"""Inputs that `napo check` reads: a profile's model, downloads, rows, benchmarks and labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import get_token
from PIL import Image
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, ProcessorMixin

from napo import stages
from napo.benchmarks import module, options
from napo.commands.footprint import Lengths
from napo.data import fetch, sources
from napo.data.rows import own_responses
from napo.data.source_files import READ_ROWS, JsonlFile, ParquetFile
from napo.errors import NapoError, first_line
from napo.method.layout import row_check
from napo.models import families
from napo.models.conversation import plain, render
from napo.models.files import config_of, load_processor
from napo.models.fingerprint import model_folder
from napo.models.load import add_adapter
from napo.models.prompts import (
    image_pixels,
    mask_token_id,
    prompt_inputs,
    response_ids,
    same_length_for_all_images,
)
from napo.noise.labels import ORACLE
from napo.progress import Progress
from napo.stages.posterior import needs_labels
from napo.stages.session import Session
from napo.training.run import lora_config
from napo.workspace.files import finished_files, read_json
from napo.workspace.manifests import complete

SHOWN = 5  # examples of each kind of problem
QUICK = 100  # a quick check decodes one image in 100
ROLES = ("USER:", "ASSISTANT:", "Human:", "###")  # words of chat templates, which text may hold
WHOLE = {"F64", "F32", "F16", "BF16"}  # types of weights that are not quantised
BY_WORLD = "Notebook 00 makes them: "

Remark = tuple[str, str]  # its state, and a sentence


class Inputs:
    """A profile's inputs. Each part is a generator of remarks, which may also raise.

    Attributes:
        session: the profile and its workspace.
        quick: decode only every hundredth image.
        processor: the model's, once `model` has loaded it.
        rows_used: number of rows that the stages will use, as far as it is known.
        longest: most tokens of a part of the rows that were read; None before.
    """

    def __init__(self, session: Session, quick: bool = False) -> None:
        self.session, self.quick, self.profile = session, quick, session.profile
        self.processor: ProcessorMixin | None = None
        self.rows_used = self.profile.data.count or self.profile.data.expected
        self.longest: Lengths | None = None

    def model(self) -> Iterator[Remark]:
        """The model's processor, its visual tokens, and the headers of its weights."""
        model, masks = self.profile.model, self.profile.masks
        location = model.location
        try:
            processor = load_processor(location, **model.preprocessing)
            if "mask_token" in (masks.image, masks.text):
                mask_token_id(processor)
            self.processor = processor
        except NapoError as error:
            yield "fault", str(error)
            if not Path(location).is_dir():  # then there are no weights to look at
                return
        stored = weight_types(location)
        quantised = sorted(stored - WHOLE - {"I64", "I32", "BOOL"})
        if quantised:
            yield (
                "fault",
                f"{model.path} holds quantised weights ({', '.join(quantised)}); name the model "
                "that they were made from.",
            )
        types = ", ".join(sorted(stored & WHOLE))
        yield "ok", f"{model.path} is there; its {types} weights are loaded as {model.dtype}."

    def downloads(self) -> Iterator[Remark]:
        """The profile's sources that are not complete."""
        for item in fetch.status(self.profile, self.session.workspace):
            if item.source.to and item.lacks:  # the model is a part of its own
                lacks = ", ".join(item.lacks[:SHOWN])
                hand = ", which also says what to do by hand" if item.source.manual else ""
                call = f"make fetch PROFILE={self.profile.argument} YES=1"
                token = ""
                if item.source.repo and not get_token():
                    token = " A gated repository also needs HF_TOKEN, which is not set."
                yield "fault", f"{item.source.name}: {item} ({lacks}); {call}{hand}.{token}"

    def rows(self) -> Iterator[Remark]:
        """The preference rows: number, images, texts, lengths."""
        data, world = self.profile.data, self.profile.world
        folder, limit = stages.source_folder(self.session), self.profile.training.max_length
        if not data.source and world.make_rows and not complete(folder):
            yield "ok", f"{BY_WORLD}{data.count:,} rows."
            return
        if not data.source and not world.make_rows:
            raise NapoError("data.source is empty and the world makes no rows; name their folder.")
        if not folder.is_dir():
            raise NapoError(f"{folder} is not there; make fetch says how to get it.")
        try:
            survey = sources.survey(folder, data.count)
        except Exception:
            problems = [("fault", problem) for problem in damaged_files(folder)]
            if not problems:
                raise
            yield from problems  # of every file, not of the first only
            return
        expected = min(data.count or data.expected, data.expected)
        if expected and survey.rows != expected:
            yield "fault", f"{folder} holds {survey.rows} rows where {expected} are expected."
        problems = list(survey.bad.values())
        special, roles, long = [], [], []  # ids
        pixels = square_pixels(self.processor) if self.processor else None
        try:
            for row, problem in self.decoded(folder, survey):
                if problem:
                    problems.append(problem)
                if problem or self.processor is None:
                    continue
                texts = [row[name] for name in ("question", "chosen", "rejected")]
                if any(plain(self.processor, text) != text.strip() for text in texts):
                    special.append(row["id"])
                if any(role in row["question"] for role in ROLES):
                    roles.append(row["id"])
                if isinstance(row["image"], Image.Image):
                    lengths = row_lengths(self.processor, row, pixels)
                    self.longest = Lengths(*map(max, self.longest or lengths, lengths))
                    if sum(lengths) > limit:
                        long.append(row["id"])
        except Exception as error:  # the findings so far are kept
            yield "fault", sentence(error, folder)
        skip = data.bad_rows == "skip"
        if problems:
            state = "note" if skip and len(problems) < survey.rows else "fault"
            end = "they will be left out" if skip else "the build would stop at the first"
            yield state, f"{len(problems)} rows cannot be used ({end}): {examples(problems)}"
        words = ", ".join(ROLES)
        for ids, text in (
            (special, "rows hold a special token, which is taken out"),
            (roles, f"questions hold a word of a chat template ({words}), which is kept"),
            (long, f"rows have a response that max_length {limit} cuts short"),
        ):
            if ids:
                yield "note", f"{len(ids)} {text}: ids {examples(ids)}"
        self.rows_used = survey.rows - len(problems)
        yield "ok", f"{self.rows_used} rows can be used."

    def decoded(self, folder: Path, survey: sources.Survey) -> Iterator[tuple[dict[str, Any], str]]:
        """Each row with usable texts, its image decoded, and why the build would refuse it.

        A quick check does not decode most images.
        """
        check = self.processor and row_check(self.processor, self.profile.training.max_length)
        with Progress(survey.rows, "look at the rows") as progress:
            for _, batch in sources.batches(folder, READ_ROWS, self.profile.data.count):
                for index, row in batch:
                    if index in survey.bad:
                        continue
                    problem = ""
                    if not (self.quick and index % QUICK):
                        try:
                            row = sources.decode(row)
                            if check:
                                check(row, own_responses(row))
                        except Exception as error:
                            problem = sentence(error, f"row {row['id']}")
                    yield row, problem
                progress.advance(len(batch))

    def benchmark(self, name: str) -> Iterator[Remark]:
        """One benchmark: its files, its count, its images."""
        profile = self.profile
        scorer, parent = module(name), stages.benchmarks_folder(self.session)
        if not profile.evaluation.source and profile.world.make_benchmarks and not complete(parent):
            yield "ok", f"{BY_WORLD}questions and images."
            return
        if not (parent / name).is_dir():
            raise NapoError(f"{parent / name} is not there; make fetch says how to get it.")
        asking = options(name, profile.evaluation).asking
        requests = scorer.requests(scorer.load(parent / name), **asking)
        images = {request.image: request for request in requests}
        problems = []
        for request in list(images.values())[:: QUICK if self.quick else 1]:
            try:
                request.open()
            except Exception as error:
                problems.append(sentence(error, f"the image of {request.id}"))
        if problems:
            count = f"{len(problems)} images cannot be used; get them again"
            yield "fault", f"{count}: {examples(problems)}"
        yield "ok", f"{len(requests)} requests about {len(images)} images."

    def labels(self) -> Iterator[Remark]:
        """Whether people have labelled the samples, if the world's truth does not."""
        annotation = self.profile.annotation
        if annotation.annotator == ORACLE:
            return
        names = sorted(stages.everyones_labels(self.session)["annotator"].unique())
        if names:
            yield "ok", f"The samples were labelled by {', '.join(names)}."
            return
        waiting = ["Fig. 4", *filter(needs_labels, self.profile.variants)]
        verb = "waits" if len(waiting) == 1 else "wait"
        yield (
            "note",
            f"{' and '.join(waiting)} {verb} until somebody has labelled {annotation.samples} "
            "samples, in JupyterLab once notebook 01 has run (notebooks/02_annotate_noise.ipynb); "
            "everything else runs.",
        )

    def adapter(self) -> Iterator[Remark]:
        """LoRA's targets are layers of the model, if the profile names its own."""
        training = self.profile.training
        if not training.lora_targets or self.processor is None:  # the model is a fault already
            return
        config = config_of(self.profile.model.location)
        with torch.device("meta"), warnings.catch_warnings():  # no memory for weights
            warnings.simplefilter("ignore")
            model = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
            add_adapter(model, lora_config(training, families.of_config(config)), seed=0)
        yield "ok", f"all LoRA target layers exist: {training.lora_targets}."


def weight_types(path: str) -> set[str]:
    """The types of a model's weights, from the headers of its files; nothing is loaded.

    Raises:
        NapoError: when a file is missing, cut short or damaged.
    """
    folder = model_folder(path)
    files = {file.name for file in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    named = set(read_json(index)["weight_map"].values()) if index.is_file() else files
    lost = sorted(named - files)
    if lost or not files:
        raise NapoError(f"{folder} lacks {examples(lost or ['*.safetensors'])}; get it again.")
    types = set()
    for name in sorted(named):
        try:
            with safe_open(str(folder / name), "pt") as weights:
                types |= {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
        except Exception as error:  # safetensors' errors derive from Exception itself
            raise NapoError(
                f"{folder / name} is cut short or damaged ({error}); get it again."
            ) from None
    return types


def square_pixels(processor: ProcessorMixin) -> dict[str, Any] | None:
    """Pixels to use for every image if all images have the same number of tokens, else None."""
    picture = Image.new("RGB", (24, 24))
    return image_pixels(processor, picture) if same_length_for_all_images(processor) else None


def row_lengths(
    processor: ProcessorMixin, row: dict[str, Any], pixels: dict[str, Any] | None
) -> Lengths:
    """Tokens of a row's image, question with its template, and longer response with its end."""
    ids = prompt_inputs(processor, row["question"], row["image"], pixels=pixels).ids
    prompt = render(processor, row["question"], image=True)
    responses = response_ids(processor, prompt, [row["chosen"], row["rejected"]])
    visual = ids.count(processor.image_token_id)
    return Lengths(visual, len(ids) - visual, max(map(len, responses)) + 1)


def damaged_files(folder: Path) -> Iterator[str]:
    """A sentence about each file of a source that does not open or read to its end."""
    for kind, pattern in ((ParquetFile, "*.parquet"), (JsonlFile, "*.jsonl")):
        for path in finished_files(folder, pattern):
            try:
                for _ in kind(path).rows(0, lambda number: True, texts_only=True):
                    pass
            except Exception as error:
                yield sentence(error, path)


def sentence(error: Exception, place: object) -> str:
    """Our own error unchanged; a library's with place, type, first line and remedy."""
    if isinstance(error, NapoError):
        return str(error)
    problem = f"{type(error).__name__}: {first_line(error, 200)}".rstrip(": .")
    return f"{place} cannot be read ({problem}); correct it or get it again."


def examples(items: Iterable[str]) -> str:
    """The first items, and the number of the others."""
    items = list(items)
    more = f" ... and {len(items) - SHOWN} more." if len(items) > SHOWN else ""
    separator = " " if items[0].endswith(".") else ", "
    return separator.join(items[:SHOWN]) + more
