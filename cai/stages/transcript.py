"""How the steps of the loop are put to a model: as a conversation, or as a plain transcript for base models.

`chat`: the critique and revision requests are user turns behind the answer, so each step's prompt begins with the
whole prompt of the step before it and is served from the prefix cache. `base`: the paper's transcript with its
`CritiqueRequest:`, `Critique:`, `RevisionRequest:` and `Revision:` labels (Bai et al. 2022, arXiv 2212.08073,
appendix).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cai.constitution.load import Bound, Constitution
from cai.constitution.model import SLOT, FewShot
from cai.records import Message, Messages

LABELS = {"system": "System", "user": "Human", "assistant": "Assistant"}
STOPS = tuple(f"\n\n{label}:" for label in ("Human", "Assistant", "CritiqueRequest", "RevisionRequest"))
"""Where a base model's text ends: it would go on to write the next turn itself. OpenAI takes no more than four."""

SEPARATOR = "\n\n---\n\n"
"""What stands between worked examples in base style."""
_TRAILING = re.compile(rf"(?:(?:\A|\n)[ \t]*{re.escape(SEPARATOR.strip())}\s*)+\Z")


@dataclass(frozen=True, slots=True)
class Asked:
    """The wording of one round: what is asked of critic and reviser."""

    principle_ids: tuple[str, ...]
    critique: str
    revision: str


def wording(constitution: Constitution, chosen: Sequence[Bound]) -> Asked:
    """The requests of one round, the constitution's templates filled with the principles drawn (strongest first)."""
    precedence = _precedence(chosen)
    rules = "\n".join(f"- {rule}" for rule in constitution.rules)

    def fill(template: str, requests: list[str]) -> str:
        # Several principles often end in the same sentence ("Reply with the new answer only."); each keeps it.
        request = requests[0] if len(requests) == 1 else "\n".join(f"{i}. {text}" for i, text in enumerate(requests, 1))
        slots = {"request": request, "precedence": precedence, "rules": rules}
        return SLOT.sub(lambda match: slots[match.group(1)], template)

    return Asked(
        principle_ids=tuple(bound.id for bound in chosen),
        critique=fill(constitution.templates.critique, [b.principle.critique.strip() for b in chosen]),
        revision=fill(constitution.templates.revision, [b.principle.revision.strip() for b in chosen]),
    )


def _precedence(chosen: Sequence[Bound]) -> str:
    """Which of the numbered requests wins, by level; empty where no two levels meet, as equals are weighed."""
    levels: dict[str, list[str]] = {}
    for number, bound in enumerate(chosen, 1):
        levels.setdefault(bound.level.name, []).append(str(number))
    if len(levels) < 2:
        return ""
    meanings = {bound.level.name: bound.level.meaning.strip().rstrip(".") for bound in chosen}
    order = ", then ".join(
        f"{' and '.join(numbers)} ({name}{': ' if meanings[name] else ''}{meanings[name]})"
        for name, numbers in levels.items()
    )
    return f"\nIf these conflict, what comes first wins: {order}."


class Transcript:
    """Puts the loop's steps into prompts.

    Args:
        style: `chat` gives messages, `base` gives text.
        few_shot: how many of the constitution's worked examples stand before critiques and revisions; None: all.
        critique: whether the loop has critiques; without, the worked examples leave theirs out too.
    """

    def __init__(
        self, constitution: Constitution, *, style: Literal["chat", "base"], few_shot: int | None, critique: bool
    ) -> None:
        self._system = constitution.system_prompt.strip()
        self._base = style == "base"
        self._critique = critique
        examples = constitution.few_shot if few_shot is None else constitution.few_shot[:few_shot]
        self._example_turns = tuple(turn for example in examples for turn in _turns(example, critique))
        self._example_text = "".join(_text(example, critique) + SEPARATOR for example in examples)

    @property
    def stops(self) -> tuple[str, ...]:
        return STOPS if self._base else ()

    def said(self, text: str) -> str:
        """What a model answered, without what only shows where its answer ended.

        Behind an answer a base model may go on as between two worked examples, and the stop leaves the separator. It
        may stand in the midst of a text, where it was meant.
        """
        return (_TRAILING.sub("", text) if self._base else text).strip()

    def draft(self, prompt: Messages) -> Messages | str:
        """What the policy is asked: the conversation, without worked examples."""
        if self._base:
            return _say(self._with_system(prompt)) + "\n\nAssistant:"
        return self._with_system(prompt)

    def for_critique(self, prompt: Messages, answer: str, asked: Asked) -> Messages | str:
        if self._base:
            return f"{self._start(prompt, answer)}\n\nCritiqueRequest: {asked.critique}\n\nCritique:"
        return (*self._turns(prompt, answer), Message("user", asked.critique))

    def for_revision(self, prompt: Messages, answer: str, asked: Asked, critique: str | None) -> Messages | str:
        if self._base:
            said = f"\n\nCritiqueRequest: {asked.critique}\n\nCritique: {critique}" if critique is not None else ""
            return f"{self._start(prompt, answer)}{said}\n\nRevisionRequest: {asked.revision}\n\nRevision:"
        turns = self._turns(prompt, answer)
        if critique is not None:
            turns = (*turns, Message("user", asked.critique), Message("assistant", critique))
        return (*turns, Message("user", asked.revision))

    def _with_system(self, prompt: Messages) -> Messages:
        if not self._system:
            return prompt
        if prompt[0].role == "system":
            return (Message("system", f"{self._system}\n\n{prompt[0].content}"), *prompt[1:])
        return (Message("system", self._system), *prompt)

    def _turns(self, prompt: Messages, answer: str) -> Messages:
        # Chat templates allow a system message only in front, so the worked examples stand behind it.
        turns = self._with_system(prompt)
        head = turns[:1] if turns[0].role == "system" else ()
        return (*head, *self._example_turns, *turns[len(head) :], Message("assistant", answer))

    def _start(self, prompt: Messages, answer: str) -> str:
        return f"{self._example_text}{_say(self._with_system(prompt))}\n\nAssistant: {answer}"


def _say(messages: Messages) -> str:
    return "\n\n".join(f"{LABELS[message.role]}: {message.content}" for message in messages)


def _turns(example: FewShot, critique: bool) -> tuple[Message, ...]:
    if example.messages:
        return tuple(Message(turn.role, turn.content) for turn in example.messages)
    if example.text:
        return (Message("user", f"Here is a worked example.\n\n{example.text.strip()}"), Message("assistant", "I see."))
    middle = (example.critique_request, example.critique) if critique else ()
    said = (example.prompt, example.response, *middle, example.revision_request, example.revision)
    return tuple(Message("assistant" if i % 2 else "user", text.strip()) for i, text in enumerate(said))


def _text(example: FewShot, critique: bool) -> str:
    if example.text:
        return example.text.strip()
    if example.messages:
        return _say(tuple(Message(turn.role, turn.content) for turn in example.messages))
    said = [f"Human: {example.prompt.strip()}", f"Assistant: {example.response.strip()}"]
    if critique:
        said += [f"CritiqueRequest: {example.critique_request.strip()}", f"Critique: {example.critique.strip()}"]
    said += [f"RevisionRequest: {example.revision_request.strip()}", f"Revision: {example.revision.strip()}"]
    return "\n\n".join(said)
