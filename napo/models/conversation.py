"""Conversations as text: the chat template, the system text, and texts without special tokens."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from napo.errors import NapoError
from napo.models import families

if TYPE_CHECKING:
    from transformers import ProcessorMixin

SENTINEL = "napo0sentinel"  # stands for a text, to find it in a template


def render(
    processor: ProcessorMixin, question: str, *, image: bool, answer: str | None = None
) -> str:
    """The chat-formatted prompt, up to the assistant's answer, or with the answer if it is given.

    It begins with the processor's system text: `load_processor` sets `processor.system`. Special
    tokens are removed from the question.

    Raises:
        NapoError: when the processor has no chat template or one without a place for the system
            text, or when that text holds a special token.
    """
    if not processor.chat_template:
        raise NapoError(
            "This model's processor has no chat template; add a chat_template.jinja to its folder."
        )
    content = [{"type": "text", "text": plain(processor, question)}]
    if image:
        content.insert(0, {"type": "image"})
    turns = [{"role": "user", "content": content}]
    if answer is not None:
        turns.append(_turn("assistant", answer))
    system = getattr(processor, "system", "")
    if plain(processor, system) != system:
        raise NapoError(
            "model.system begins or ends with white space, or holds a special token of this "
            "model; take it out."
        )
    has_role = bool(system) and _has_system_role(processor, processor.chat_template)
    if has_role:
        turns.insert(0, _turn("system", system))
    conversation = processor.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=answer is None
    )
    if not system or has_role:
        return conversation
    after_system = families.of_processor(processor).after_system
    if after_system is None:
        raise NapoError(
            "The chat template of this model has no place for a system text; set model.system to "
            "'', or add the role system to its chat_template.jinja."
        )
    start = processor.tokenizer.bos_token or ""  # some templates write it themselves
    start = start if conversation.startswith(start) else ""
    return start + system + after_system + conversation.removeprefix(start)


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


@lru_cache(maxsize=16)
def _has_system_role(processor: ProcessorMixin, template: str) -> bool:
    """Whether the chat template writes a system text once, and not as another role's.

    Some templates leave an unknown role out or write it as the assistant's. `template` is the
    cache's key.
    """

    def written(role: str) -> str:
        turns = [_turn(role, SENTINEL), _turn("user", "x")]
        try:
            return processor.apply_chat_template(turns, tokenize=False)
        except Exception:  # a template is a program, and refuses a role by any error
            return ""

    text = written("system")
    # Some templates write the list of parts as text.
    once = text.count(SENTINEL) == 1 and "'type'" not in text
    return once and text not in (written("assistant"), written("user"))


def plain(processor: ProcessorMixin, text: str) -> str:
    """A question or response without this tokenizer's special tokens and outer white space."""
    special = _special_tokens(processor)
    while (without := special.sub("", text)) != text:  # removing one can join another together
        text = without
    return text.strip()


@lru_cache(maxsize=16)
def _special_tokens(processor: ProcessorMixin) -> re.Pattern[str]:
    added = processor.tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special} | {processor.image_token}
    longest_first = sorted(special, key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in longest_first))
