"""Judges of MMHal-Bench: a rule that knows the truth, or a model behind an endpoint.

Also the prompts: MMHal-Bench's for the judge, Object HalBench's for the model that lists objects.
Both are ours; a file beside the benchmark replaces them, and results record which text was used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks.chat import Chat
from napo.errors import NapoError
from napo.workspace.files import read_text

if TYPE_CHECKING:
    from napo.config.profile import Evaluation

Rule = Callable[[Mapping[str, Any], str], str]  # (item, answer) -> reply
Pair = tuple[Mapping[str, Any], str]  # an item of the benchmark and the model's answer
CACHE = "judge.sqlite"
PROMPT_FILE = "judge_prompt.txt"
EXTRACTOR_FILE = "extractor_prompt.txt"

# The structure of the official prompt in our own words; the rating lines are the benchmark's.
PROMPT = """\
You are an impartial judge of answers that a multimodal model (LMM) gives about an image. Judge \
mainly two things: how informative the answer is, and whether it hallucinates. A hallucination is \
a claim that has no ground in the image or in the conversation. You cannot see the image; its \
contents are listed, and a person has answered the same question.

Bear in mind, as in these five cases:

Case 1. Contents: Bench, Tree. Question: How many benches are there? Human: Two. Answer: There are \
three benches. Analysis: the count is wrong, and a wrong count is a hallucination; the answer says \
little else. Rating: 0
Case 2. Contents: Boat, Lake. Question: What is on the lake? Human: A boat. Answer: A small boat \
floats on calm water, perhaps for fishing. Analysis: the detail goes beyond the human answer, but \
nothing contradicts the image and the guess is marked as one; extra detail that fits is welcome. \
Rating: 5
Case 3. Contents: Clock, Tower. Question: What time is it? Human: Ten past two. Answer: I am not \
certain, the hands are hard to read. Analysis: uncertainty, or failing to answer, is no \
hallucination, yet it does not inform. Rating: 3
Case 4. Contents: Person, Umbrella. Question: What color is the man's hat? Human: He wears no hat. \
Answer: The man's hat is black, and he holds an umbrella against the rain. Analysis: the answer \
accepts a hat that does not exist; the umbrella is right. Rating: 1
Case 5. Contents: Zebra, Grass. Question: Where might this be? Human: A savanna. Answer: Zebras \
live wild in eastern and southern Africa, so with this dry grass it is probably a savanna there. \
Analysis: general knowledge that fits the image, and reasoning that leads to the answer. Rating: 6

The human answer may be incomplete: do not count a claim as a hallucination only because it is \
missing there. Sound reasoning is to be encouraged.

First explain your judgement in a few sentences. Then end with exactly one of these options:
Rating: 6, very informative with good analysis or reasoning, no hallucination
Rating: 5, very informative, no hallucination
Rating: 4, somewhat informative, no hallucination
Rating: 3, not informative, no hallucination
Rating: 2, very informative, with hallucination
Rating: 1, somewhat informative, with hallucination
Rating: 0, not informative, with hallucination

### Image Contents
{}

### Question
{}

### Standard Human-Generated Answer
{}

### LMM Response to Evaluate
{}
"""


LIST_OBJECTS = """\
You are an expert in finding the objects of an image in a question and its answer. An examiner \
was asked about a picture.

[Question]
<image> {question}
[End of question]

[Examiner's answer]
{answer}
[End of examiner's answer]

Take the answer to be correct and name all visible objects that it shows directly.
1. Name only objects that the answer mentions explicitly.
2. Name them without attributes.
3. No property, such as color or material, is part of a name.
4. Be precise, and reply with a JSON list of strings and nothing else.
5. If there is no object, reply with an empty JSON list: []
"""


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the name of its source: "ours", or the file that replaces it."""

    text: str
    source: str = "ours"

    @classmethod
    def read(cls, path: Path, ours: str, places: Sequence[str]) -> Prompt:
        """The prompt of a file, or ours where there is no file.

        Args:
            path: the file.
            ours: the text without it.
            places: what the text must hold, each once, where values are put in.

        Raises:
            NapoError: when a place is missing or repeated.
        """
        if not path.is_file():
            return cls(ours)
        text = read_text(path, "correct it, or remove it to use ours")
        for place in dict.fromkeys(places):
            if text.count(place) != places.count(place):
                raise NapoError(
                    f"{path} has {text.count(place)} places {place} instead of "
                    f"{places.count(place)}; it needs {', '.join(places)}."
                )
        return cls(text, path.name)

    def __str__(self) -> str:
        return f"{self.source} (sha256 {hashlib.sha256(self.text.encode()).hexdigest()[:16]})"


class RuleJudge:
    """A function (item, answer) -> reply, such as the icon world's, which knows the scene."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.record = {"judge": "rule"}

    def replies(self, pairs: Iterable[Pair]) -> list[str]:
        """One reply for each (item, answer)."""
        return [self.rule(item, answer) for item, answer in pairs]


class OpenAIJudge:
    """MMHal-Bench's judge behind an endpoint: temperature 0, top-p 1, at most 512 tokens.

    Args:
        chat: the model that judges.
        prompt: has four `{}`: contents, question, human answer, response. `PROMPT` has the official
            prompt's structure in other words, so its ratings are not the official judge's; the
            official text can be used instead.
        extractor: the prompt of Object HalBench, which the same model answers.
    """

    def __init__(
        self,
        chat: Chat,
        prompt: Prompt = Prompt(PROMPT),
        extractor: Prompt = Prompt(LIST_OBJECTS),
    ) -> None:
        self.chat, self.prompt, self.extractor = chat, prompt, extractor

    def requests(self, pairs: Iterable[Pair]) -> list[dict[str, Any]]:
        """The request for each (item, answer)."""
        requests, parts = [], self.prompt.text.split("{}")  # no str.format: a text may hold braces
        for item, answer in pairs:
            contents = ", ".join(item["image_content"])
            values = (contents, item["question"], item["gt_answer"], answer, "")
            content = "".join(part + value for part, value in zip(parts, values, strict=True))
            requests.append(
                {
                    "messages": [{"role": "user", "content": content}],
                    "temperature": 0,
                    "top_p": 1,
                    "max_tokens": 512,
                }
            )
        return requests

    def replies(self, pairs: Iterable[Pair]) -> list[str]:
        """One reply for each (item, answer)."""
        return self.chat.ask(self.requests(pairs))

    @property
    def record(self) -> dict[str, Any]:
        """The judge as a result names it; `answered_by` is the endpoint's own name of its model."""
        return {
            "judge": "openai",
            "judge_model": self.chat.model,
            "judge_prompt": str(self.prompt),
            "answered_by": sorted(self.chat.answered_by),
        }


Judge = RuleJudge | OpenAIJudge


def make(
    settings: Evaluation, benchmarks: Path, rule: Rule | None, *, dry_run: bool = False
) -> Judge:
    """The judge that the settings name.

    In the folder of the benchmarks `mmhal/judge_prompt.txt` replaces `PROMPT`, and
    `object_halbench/extractor_prompt.txt` replaces `LIST_OBJECTS`. The file of replies lies beside
    that folder.

    Raises:
        NapoError: when the settings name the rule and the world has none, or a prompt lacks a place
            for a value.
    """
    if settings.judge == "rule":
        if rule is None:
            raise NapoError(
                "MMHal-Bench needs a judge and this profile's world has no rule; set "
                "evaluation.judge to openai and evaluation.judge_model to the judge's name."
            )
        return RuleJudge(rule)
    folder = Path(benchmarks)
    prompt = Prompt.read(folder / "mmhal" / PROMPT_FILE, PROMPT, ["{}"] * 4)
    path = folder / "object_halbench" / EXTRACTOR_FILE
    extractor = Prompt.read(path, LIST_OBJECTS, ["{question}", "{answer}"])
    chat = Chat(settings.judge_model, folder.parent / CACHE, dry_run=dry_run)
    return OpenAIJudge(chat, prompt, extractor)
