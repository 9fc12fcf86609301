"""What all judges share: the question, the prompt file, quoting of untrusted text, and reading a choice's probability.

A judge never reads a verdict out of generated text. Whatever the answers contain, the verdict is the probability of a
few fixed tokens at a fixed place, after a reply that we began ourselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field, field_validator, model_validator

from cai import yamlfile
from cai.engine import Generate, Request, Sampling
from cai.errors import InputError
from cai.ranking import ranking as ranking
from cai.records import Comparison, Message, Messages, Vote, content_hash
from cai.yamlfile import StrictModel

PROMPTS = Path(__file__).parent / "judges" / "prompts"
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked: one principle's question, or several principles' in one.

    Attributes:
        text: "" for the judge's own general question.
        principle_ids: what it was made from.
        axis: what is measured.
        weight: of the principle among those whose votes are averaged.
    """

    text: str = ""
    principle_ids: tuple[str, ...] = ()
    axis: str = ""
    weight: float = 1.0


class Judge(Protocol):
    """A method bound to its options and models; a plain coroutine over a pair or a group.

    Attributes:
        name: what its votes carry.
        id: hash of method, options, prompt file and models: two judges with equal ids give equal votes.
        unit: whether it is given a `Comparison` or a whole `Group`; both give votes on comparisons.
    """

    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def unit(self) -> str: ...

    def __call__(self, item: Any, question: Question, generate: Generate) -> Coroutine[Any, Any, tuple[Vote, ...]]:
        """The votes on one item. A verdict that cannot be read is a vote with an `error`, never a probability.

        Raises:
            BackendError: a model did not answer.
        """
        ...


# --- prompt files -----------------------------------------------------------------------------------------------------


class Shot(StrictModel):
    """A worked example before the question: values of the slots, and the reply."""

    slots: dict[str, str] = Field(description="Value of each slot of `user`.")
    reply: str = Field(description="The whole reply, as the judge should have given it.")


class PromptFile(StrictModel):
    """A judge's prompt: `cai/judges/prompts/<name>.yaml`, or a file of your own.

    The slots of `user` are in braces. Put `{question}` last: what stands before it is the same for every principle, and
    is served from the prefix cache.
    """

    name: str = Field(description="For tables.")
    notes: str = Field("", description="For people; no model sees it.")
    system: str = Field("", description="System message; none where blank.")
    user: str = Field(description="The user's message, with slots.")
    reply: str = Field("", description="How the reply begins; the verdict is the next token.")
    reason: str = Field("", description="How the rationale begins, for judges that write one.")
    verdict: str = Field("", description="What is put between a rationale and the verdict.")
    question: str = Field(description="What is asked where no principle is given.")
    choices: tuple[str, ...] = Field(
        ("A", "B"), description="The tokens whose probability is the verdict: a better, b better, and perhaps a tie."
    )
    few_shot: tuple[Shot, ...] = Field((), description="Worked examples, before the question.")

    @field_validator("choices")
    @classmethod
    def _choices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) < len(value) or not all(choice.strip() for choice in value):
            raise ValueError("give at least two different choices, none blank")
        return value

    @model_validator(mode="after")
    def _shots(self) -> PromptFile:
        slots = set(SLOT.findall(self.user))
        for shot in self.few_shot:
            missing = sorted(slots - set(shot.slots))
            if missing:
                raise ValueError(f"a few_shot example lacks the slots {', '.join(missing)}")
        return self

    def check(self, where: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Refuse a file without a slot that the judge fills, or with one that it does not know.

        Raises:
            InputError: names the slot.
        """
        slots, needed = set(SLOT.findall(self.user)), set(needed)
        known = sorted(needed | set(optional))
        for slot in sorted(slots - set(known)):
            raise InputError(f"unknown slot {{{slot}}}{yamlfile.nearest(slot, known)}", where=where)
        for slot in sorted(needed - slots):
            raise InputError(f"the slot {{{slot}}} is missing", where=where)

    def messages(self, slots: Mapping[str, str], *, reply: str | None = None) -> Messages:
        """The conversation to put to the model; with a last assistant turn that it continues, unless `reply` is "".

        Values are put in as they are: a slot's name inside a value is never filled.
        """
        turns = [Message("system", self.system.strip())] if self.system.strip() else []
        for shot in self.few_shot:
            turns += [Message("user", fill(self.user, shot.slots)), Message("assistant", shot.reply)]
        turns.append(Message("user", fill(self.user, slots)))
        begun = self.reply if reply is None else reply
        return (*turns, Message("assistant", begun)) if begun else tuple(turns)


def load_prompt(name: str) -> PromptFile:
    """A prompt file, by name or by path.

    Raises:
        InputError: no such file; names the nearest. InvalidFile: every fault with its position.
    """
    path = Path(name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        known = sorted(file.stem for file in PROMPTS.glob("*.yaml"))
        if name not in known:
            raise InputError(
                f"no judge prompt {name!r}{yamlfile.nearest(name, known)}", mend=f"one of: {', '.join(known)}"
            )
        path = PROMPTS / f"{name}.yaml"
    return yamlfile.validate(yamlfile.load(path), PromptFile)


def fill(template: str, slots: Mapping[str, str]) -> str:
    """`template` with its slots filled, in one pass."""
    return SLOT.sub(lambda found: slots[found.group(1)], template).strip()


# --- untrusted text ---------------------------------------------------------------------------------------------------

CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|<</?SYS>>|</?s>|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad|unk|sop|eop)>|<extra_id_\d{1,4}>|</?think>|</?tool_(?:call|response)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|gMASK)\]"
)
"""What common chat templates write between turns; in an answer it would end our own turn and begin a forged one."""


def quote(text: str) -> str:
    """Text of prompt or answer as a judge may be shown it: control tokens of chat templates broken up by a blank."""
    return CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text.strip())


def fence(texts: Sequence[str]) -> str:
    """A mark of 6 hex digits that occurs in none of `texts`, for the tags around them: no answer can close its own.

    The same for any order of the texts.
    """
    key = ""
    while True:
        key = content_hash(key, sorted(texts), length=6)
        if not any(key in text for text in texts):
            return key


PAIR_SLOTS = ("conversation", "answer_a", "answer_b", "question")
"""Slots that the prompt of a pair judge needs; `mark` may be left out."""


def pair_slots(shown: Comparison, question: str) -> dict[str, str]:
    """Values of a pair prompt's slots."""
    texts = [turn.content for turn in shown.prompt.messages] + [shown.a.text, shown.b.text]
    return {
        "conversation": conversation(shown.prompt.messages),
        "answer_a": quote(shown.a.text),
        "answer_b": quote(shown.b.text),
        "question": question.strip(),
        "mark": fence(texts),
    }


def conversation(messages: Messages) -> str:
    """The prompt's turns for a judge's eyes: one turn as it is, several with the speakers' names."""
    if len(messages) == 1:
        return quote(messages[0].content)
    names = {"system": "System", "user": "User", "assistant": "Assistant"}
    return "\n\n".join(f"{names[turn.role]}: {quote(turn.content)}" for turn in messages)


# --- probabilities ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scored:
    """Probabilities of the choices offered, as read from one forward pass.

    Attributes:
        p: normalised over the choices; sums to 1.
        mass: what the model gave to all of them together before normalising.
        logprobs: as read.
    """

    p: tuple[float, ...]
    mass: float
    logprobs: tuple[float, ...]


async def score(messages: Messages, choices: tuple[str, ...], generate: Generate, *, model: str) -> Scored:
    """The probability of each of `choices` as the next token, in one forward pass.

    Raises:
        ContextOverflow, BackendError: from the backend.
    """
    request = Request(messages, Sampling(max_tokens=1, temperature=0.0), seed=0, model=model, choices=choices)
    completion = await generate(request)
    logprobs = completion.choice_logprobs
    top = max(logprobs)
    shares = [math.exp(value - top) for value in logprobs]
    total = sum(shares)
    mass = min(1.0, math.exp(top) * total)
    return Scored(tuple(share / total for share in shares), mass, logprobs)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one asking came to: probabilities that the answer shown first is better, and of a tie."""

    p_first: float | None
    p_tie: float = 0.0
    mass: float | None = None
    raw: Mapping[str, Any] | None = None
    error: str | None = None


def vote(
    comparison: Comparison,
    verdict: Verdict,
    judge: Judge,
    question: Question,
    *,
    ordered: bool = True,
    key: str = "",
) -> Vote:
    """The vote on a comparison as it was shown; the probability is put back to the comparison's own order.

    Args:
        ordered: false for methods that do not show the two beside one another in an order.
        key: tells apart the votes of a judge that asks the same question of the same comparison in the same order
            more than once; part of the vote's id.
    """
    order = ("ba" if comparison.swapped else "ab") if ordered else ""
    p_a = verdict.p_first
    if p_a is not None and comparison.swapped:
        p_a = max(0.0, 1.0 - p_a - verdict.p_tie)
    return Vote(
        id=content_hash(comparison.id, order, judge.id, question.text, question.principle_ids, question.axis, key),
        comparison_id=comparison.id,
        group_id=comparison.group_id,
        judge=judge.name,
        judge_id=judge.id,
        principle_ids=question.principle_ids,
        axis=question.axis,
        order=order,
        p_a=p_a,
        p_tie=verdict.p_tie,
        mass=verdict.mass,
        weight=question.weight,
        raw=verdict.raw or {},
        error=verdict.error,
    )


def both_orders(comparison: Comparison, orders: str) -> tuple[Comparison, ...]:
    """The comparison as it is to be shown: once, or in `both` orders."""
    return (comparison, comparison.swap()) if orders == "both" else (comparison,)


def judge_id(
    name: str,
    config: StrictModel,
    prompt: PromptFile | None,
    models: Sequence[str],
    *,
    exclude: Iterable[str] = (),
) -> str:
    """Hash of what a judge's votes depend on; where the prompt file lies and what it notes are not part of it.

    Args:
        models: fingerprints of the models; or ids of inner judges, and whatever else decides.
        exclude: options that change no vote, or that `models` stands for.
    """
    said = prompt.model_dump(mode="json", exclude={"notes", "name"}) if prompt else None
    options = config.model_dump(mode="json", exclude={"prompt", *exclude})
    return content_hash(name, options, said, list(models), length=16)


TOO_LONG = "too_long"
"""The prompt does not fit in the model's context."""
LOW_MASS = "low_mass"
"""The model gave the offered answers together less probability than `min_mass`."""
EMPTY_RATIONALE = "empty_rationale"
"""No reasons were given where they were asked for."""
UNREAD = "unread"
"""The backend told no probability for either answer."""
UNCONNECTED = "unconnected"
"""A tournament links the two answers by no chain of verdicts."""
