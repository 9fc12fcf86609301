"""The rows that every stage reads and writes.

Frozen dataclasses; one JSON object a row; each row carries `schema`, the version of its shape. A record's `id` is the
hash of what produced it, so resume, caching and provenance are questions about ids.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self, get_args

from cai.errors import InputError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[str, ...] = get_args(Role)


def content_hash(*parts: Any, length: int = 24) -> str:
    """Hex digest (`length` characters, 4 bits each) of JSON-serialisable `parts`; stable across machines."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str

    def row(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


Messages = tuple[Message, ...]


def messages_from(value: Any, *, where: str = "messages") -> Messages:
    """Messages from JSON `[{"role", "content"}, ...]`.

    Raises:
        InputError: not a non-empty list of such objects, or a role that is not system, user or assistant.
    """
    if not isinstance(value, list | tuple) or not value:
        raise InputError("must be a non-empty list of messages", where=where)
    turns = []
    for index, item in enumerate(value):
        if not isinstance(item, Mapping) or item.get("role") not in ROLES or not isinstance(item.get("content"), str):
            raise InputError(f"message {index} must have a role ({', '.join(ROLES)}) and a text content", where=where)
        turns.append(Message(item["role"], item["content"]))
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Record:
    """Base of the rows: `row()` to a JSON object, `from_row()` back."""

    SCHEMA: ClassVar[int] = 1

    def row(self) -> dict[str, Any]:
        """JSON object; fields in their declared order, `schema` first."""
        return {"schema": self.SCHEMA, **{f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], *, where: str = "") -> Self:
        """The record that `row()` wrote.

        Raises:
            InputError: another schema version, a missing or an unknown field, or a malformed value.
        """
        where = where or cls.__name__
        if row.get("schema") != cls.SCHEMA:
            raise InputError(f"schema {row.get('schema')!r} instead of {cls.SCHEMA}", where=where)
        values = {key: value for key, value in row.items() if key != "schema"}
        for f in dataclasses.fields(cls):
            if f.name in values:
                if f.name == "messages":
                    values["messages"] = messages_from(values["messages"], where=where)
                elif isinstance(values[f.name], list):
                    values[f.name] = tuple(values[f.name])
        try:
            return cls(**values)
        except TypeError as error:
            raise InputError(str(error).replace("__init__()", "row"), where=where) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return value.row()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Prompt(Record):
    """What the policy is asked: one or several turns, the last by the user.

    Attributes:
        id: hash of the messages; equal prompts have equal ids.
        tags: free labels (`red-team`, `helpful`, ...); a recipe can treat tags differently.
        source: where it came from, `file:line` or a data set's name.
        overrides: ids or tags of default-level principles that this prompt's user may set aside.
    """

    id: str
    messages: Messages
    tags: tuple[str, ...] = ()
    source: str = ""
    overrides: tuple[str, ...] = ()

    @classmethod
    def make(
        cls,
        messages: Messages | str,
        *,
        tags: tuple[str, ...] = (),
        source: str = "",
        overrides: tuple[str, ...] = (),
    ) -> Prompt:
        """A prompt with its id computed; a plain string is one user turn.

        Raises:
            InputError: no turns, or the last turn is not the user's.
        """
        turns = (Message("user", messages),) if isinstance(messages, str) else messages
        if not turns or turns[-1].role != "user":
            raise InputError("a prompt must end with a user turn", where=source or "prompt")
        key = content_hash([[turn.role, turn.content] for turn in turns])
        return cls(id=key, messages=turns, tags=tags, source=source, overrides=overrides)


@dataclass(frozen=True, slots=True)
class Response(Record):
    """An answer to a prompt: a draft (`round` 0) or a revision (`round` 1, 2, ...) with its parent and critique.

    Attributes:
        id: hash of the request that produced `text` and of the parent.
        text: the answer as it would be shown to the user.
        model: fingerprint of the model that wrote it.
        sampling: temperature, top_p, max_tokens, seed, ... as sent to the backend.
        parent_id: the response that was revised; None for a draft.
        principle_ids: the principles asked in this round, in the order asked.
        critique: the critique that led to this revision; None for drafts and for the no-critique ablation.
        finish_reason: `stop`, or `length` when the token limit cut it off; `skipped` for a round without a text.
        critique_flags: what is wrong with the critique; a clumsy critique may still lead to a good revision.
        flags: what is wrong with it, as found by `cai.faults`; a flagged revision is never passed on.
        attempts: flagged texts that a retry replaced, as `{"step", "text", "flags", "finish_reason"}`.
        tokens: generated tokens, critique included.
    """

    id: str
    prompt_id: str
    round: int
    text: str
    model: str
    sampling: Mapping[str, Any]
    finish_reason: str
    parent_id: str | None = None
    principle_ids: tuple[str, ...] = ()
    critique: str | None = None
    critique_model: str | None = None
    critique_flags: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    attempts: tuple[Mapping[str, Any], ...] = ()
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the answers that are compared: the id of its `Response` and its text."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, in the order in which a judge is shown them.

    Position is a property of the data: to ask in the other order, judge `swap()` and swap the vote back.

    Attributes:
        id: hash of prompt and answers; the same for both orders.
        group_id: the group that the pair is one of C(K, 2) of.
        swapped: whether `a` and `b` have changed places.
    """

    id: str
    group_id: str
    prompt: Prompt
    a: Candidate
    b: Candidate
    swapped: bool = False

    def swap(self) -> Comparison:
        """The same two answers in the other order."""
        return dataclasses.replace(self, a=self.b, b=self.a, swapped=not self.swapped)


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its K answers (K >= 2, no two with the same text), which are compared with one another.

    InstructGPT (Ouyang et al. 2022, arXiv 2203.02155, section 3.5): the C(K, 2) pairs of a group belong together.
    """

    id: str
    prompt: Prompt
    candidates: tuple[Candidate, ...]

    @classmethod
    def make(cls, prompt: Prompt, candidates: Sequence[Candidate]) -> Group:
        """A group with its id computed.

        Raises:
            InputError: fewer than two answers, or two with the same text: no verdict could tell those apart.
        """
        if len(candidates) < 2:
            raise InputError(f"{len(candidates)} answer(s); a comparison needs two", where=f"prompt {prompt.id}")
        if len({candidate.text for candidate in candidates}) < len(candidates):
            raise InputError("two of its answers have the same text", where=f"prompt {prompt.id}")
        key = content_hash(prompt.id, [[c.id, c.text] for c in candidates])
        return cls(key, prompt, tuple(candidates))

    def comparisons(self) -> tuple[Comparison, ...]:
        """The C(K, 2) pairs, each with its own first answer, whatever group it is in; see `comes_first`."""
        pairs = []
        for one, other in itertools.combinations(self.candidates, 2):
            key = content_hash(self.prompt.id, sorted([[one.id, one.text], [other.id, other.text]]))
            a, b = (one, other) if comes_first(self.prompt.id, one.text, other.text) else (other, one)
            pairs.append(Comparison(key, self.id, self.prompt, a, b))
        return tuple(pairs)


def comes_first(prompt_id: str, one: str, other: str) -> bool:
    """Whether `one` is the a of a comparison of two texts. Drawn by hash, so that a is no better than b on average."""
    return content_hash(prompt_id, one) < content_hash(prompt_id, other)


@dataclass(frozen=True, slots=True)
class Vote(Record):
    """What one judge said of one comparison, asked once, in one order: a distribution, never only a letter.

    Attributes:
        id: hash of all that the verdict depends on: comparison, order, question, and judge with prompt and model.
        comparison_id, group_id: what was compared.
        judge: name of the method, or of a panel's member.
        judge_id: hash of the method with its options, prompt file and model.
        principle_ids: what the question was made from; empty for the judge's own question.
        axis: what is measured (`harmless`, `helpful`, ...); "" for the judge's own question.
        order: `ab`, `ba`, or "" where the method does not show one beside the other in an order.
        p_a: probability that the comparison's own (unswapped) `a` is better; None where there is no verdict.
        p_tie: probability that neither is.
        mass: probability that the model gave to the answers it was offered, the smallest of those that were read.
        weight: of the principle, relative to others.
        raw: all that was read: log-probabilities, samples, scores; and the rationale where there is one.
        error: why there is no verdict: `low_mass`, `too_long`, `unparsed`, ...; None where there is one.
    """

    id: str
    comparison_id: str
    group_id: str
    judge: str
    judge_id: str
    principle_ids: tuple[str, ...]
    axis: str
    order: str
    p_a: float | None
    p_tie: float = 0.0
    mass: float | None = None
    weight: float = 1.0
    raw: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def p(self) -> float | None:
        """The soft label of a: a tie counts half (Bradley-Terry)."""
        return None if self.p_a is None else self.p_a + self.p_tie / 2


VERDICTS = ("a", "b", "tie", "both_bad", "abstain")


@dataclass(frozen=True, slots=True)
class HumanLabel(Record):
    """What one person said of one comparison, on one axis, at one time. Never changed: a correction is a new event.

    Attributes:
        id: hash of all that identifies the event; importing the same file again gives the same ids.
        axis: what was asked (`helpful`, `harmless`, ...); "" for the overall question.
        annotator: pseudonym of the person.
        verdict: one of `VERDICTS`, in the comparison's own (unswapped) order; `abstain` says nothing about the answers,
            `both_bad` is a tie with a flag.
        strength: 1 (a much better) to 7 (b much better), 4 equal, in the comparison's own order; None where not asked.
        shown_order: `ab`, `ba`, or "" where it is not known.
        seconds: from showing to answering; None where not known.
        status: `submitted`; `draft`, `discarded` or `skipped` events are kept and never counted.
        ts: when, ISO 8601 in UTC; "" where not known.
        supersedes: id of the event that this one replaces.
        edit: an answer as this person would have it: a demonstration.
        gold: whether it was asked to check the annotator, its right verdict being known.
        text_hash: of prompt and answers as they were shown; tells labels for texts that have changed since.
        extra: what else the source carried.
    """

    id: str
    comparison_id: str
    group_id: str
    axis: str
    annotator: str
    verdict: str
    strength: int | None = None
    shown_order: str = ""
    seconds: float | None = None
    note: str = ""
    status: str = "submitted"
    ts: str = ""
    supersedes: str | None = None
    edit: str = ""
    gold: bool = False
    source: str = ""
    text_hash: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def y(self) -> float | None:
        """1 where a is better, 0 where b is, 0.5 for a tie; None where the label says nothing."""
        return {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}.get(self.verdict)


PLACES = 12
"""Decimal places to which the labels of a preference are rounded, so that two halves are a half."""

Said = Literal["ok", "tie", "abstain"]


def verdict_of(p: float | None, p_tie: float, band: float = 0.0) -> Said:
    """What a soft label says of two answers: that one is better (`ok`), that neither is, or nothing.

    Args:
        p: that one of them is better, a tie counting half; it does not matter which.
        p_tie: the part of it that is said to be a tie. Where that is likelier than either answer, it is one.
        band: a `p` nearer to 0.5 than this is a tie; exactly 0.5 always is.
    """
    if p is None:
        return "abstain"
    better = max(p, 1 - p)
    near = better == 0.5 or round(better - 0.5, PLACES) < band
    return "tie" if near or tie_is_likeliest(p, p_tie) else "ok"


def tie_is_likeliest(p: float, p_tie: float) -> bool:
    """Whether a tie is likelier than either of two answers, `p` and `p_tie` being as they were said.

    Of a label that was clamped or calibrated since it cannot be told: that moves `p`, and not what a tie is beside it.
    """
    return round(p_tie - (max(p, 1 - p) - p_tie / 2), PLACES) > 0


def margin_of(p: float | None) -> float:
    """2 p - 1, rounded: a p of 0.6 has the margin 0.2 that people write; 0 where there is no label."""
    return 0.0 if p is None else round(2 * p - 1, PLACES)


@dataclass(frozen=True, slots=True)
class Preference(Record):
    """What the votes on a comparison come to: a pure function of them and of the rule.

    Attributes:
        id: hash of comparison, axis and rule.
        group_id: the group it is one pair of; `weight` is 1 / C(K, 2), so that every group counts alike.
        messages: the prompt.
        chosen, rejected: texts; where `p` is 0.5 the comparison's own order stands.
        p: soft label, the probability that `chosen` is better, at least 0.5; a tie counts half.
        p_tie: the part of it that is said to be a tie.
        margin: 2 p - 1, see `margin_of`.
        agreement: share of the questions (principles, judges) whose soft label falls on the side of `chosen`; one that
            falls on neither counts half.
        flipped: share of the questions asked in both orders whose verdict changed with the order.
        axis: what was asked about.
        principle_ids: those whose verdicts count in `p`; where there is no verdict, those that were asked.
        votes: ids of all votes, those without a verdict too.
        source: `ai`, `human`, or how the two were merged.
        status: `ok`; `tie` where a tie is the likeliest, or `p` is as near to 0.5 as the rule calls a tie (it keeps its
            `p`); `abstain` where no vote has a verdict (`p` is then None). See `verdict_of`.
    """

    id: str
    comparison_id: str
    group_id: str
    prompt_id: str
    messages: Messages
    chosen: str
    rejected: str
    chosen_id: str
    rejected_id: str
    p: float | None
    p_tie: float
    margin: float
    agreement: float
    flipped: float
    weight: float
    axis: str
    principle_ids: tuple[str, ...]
    votes: tuple[str, ...]
    source: str = "ai"
    status: str = "ok"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantined(Record):
    """A prompt that yielded no usable row, with the reason; nothing is dropped in silence.

    Attributes:
        stage: the stage that gave up on it.
        reason: a short fixed word (`too_long`, `backend`, `no_clean_revision`, ...), for counting.
        detail: the sentence a person reads.
        input: the input row, so that it can be mended and run again.
    """

    id: str
    stage: str
    reason: str
    detail: str
    input: Mapping[str, Any] = field(default_factory=dict)
