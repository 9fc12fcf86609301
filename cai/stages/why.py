"""The story of one row: what was asked, every step that was taken, and why it was trained on or not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from cai.errors import InputError
from cai.records import Prompt, Quarantined, Response
from cai.stages.export import REASONS, Choice, SftOptions, Split, choose, split_of, utf8

if TYPE_CHECKING:  # rich is only needed to draw
    from rich.console import Group, RenderableType

SHORTEST = 6
"""Characters of an id that have to be given at least."""


@dataclass(frozen=True)
class Explanation:
    """What is known about one id.

    Attributes:
        id: in full.
        kind: what the id names.
        prompt: None when the prompt is not among the prompts any more, or was never readable.
        steps: the responses to the prompt in round order, each with its fate in the SFT data; then any samples.
        quarantined: what was given up on, and why.
        split: where the prompt's rows go; None without a prompt.
        titles: titles of principles, by id, for showing.
    """

    id: str
    kind: Literal["prompt", "response", "quarantined"]
    prompt: Prompt | None
    steps: tuple[Choice, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    split: Split | None = None
    titles: Mapping[str, str] = field(default_factory=dict)

    def sentence(self, step: Choice) -> str:
        """Whether the step's response is trained on, for people."""
        if step.kind is not None:
            return f"in the SFT data: {step.kind}, {self.split} split"
        flags = f" ({', '.join(step.response.flags)})" if step.reason == "flagged" else ""
        return f"not in the SFT data: {REASONS[step.reason]}{flags}"

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if self.kind == "response":
            return next(self.sentence(step) for step in self.steps if step.response.id == self.id)
        if self.steps:
            entered = sum(step.kind is not None for step in self.steps)
            told = f"{entered} of {len(self.steps)} responses in the SFT data"
            told += f", {self.split} split" if entered else ""
        else:
            told = "no response, so nothing in the SFT data"
        reasons = ", ".join(dict.fromkeys(row.reason for row in self.quarantined))
        return f"{told}; given up: {reasons}" if reasons else told

    def row(self) -> dict[str, Any]:
        """JSON object: the records as they are stored; each step with `asked` (the id names it) and its `sft` fate."""
        return {
            "id": self.id,
            "kind": self.kind,
            "verdict": self.verdict,
            "split": self.split,
            "prompt": self.prompt.row() if self.prompt else None,
            "steps": [
                {
                    **step.response.row(),
                    "sampling": dict(step.response.sampling),
                    "asked": step.response.id == self.id,
                    "sft": {"kind": step.kind, "reason": step.reason, "sentence": self.sentence(step)},
                }
                for step in self.steps
            ],
            "quarantined": [{**row.row(), "input": dict(row.input)} for row in self.quarantined],
        }


def is_named(asked: str, id: str) -> bool:
    """Whether what a user asked for is this id, or enough of its beginning."""
    asked = asked.strip()
    return id == asked or (len(asked) >= SHORTEST and id.startswith(asked))


def explain(
    id: str,
    prompts: Iterable[Prompt],
    responses: Mapping[str, Sequence[Response]],
    quarantined: Iterable[Quarantined],
    *,
    samples: Mapping[str, Sequence[Response]] | None = None,
    options: SftOptions,
    titles: Mapping[str, str] | None = None,
) -> Explanation:
    """The story behind `id`: a response (a training row), a prompt or a quarantined row; or the start of one.

    `prompts` and `quarantined` are gone through once, and only what concerns `id` is kept.

    Args:
        id: in full, or at least its first `SHORTEST` characters if no other id starts so.
        responses: of the revise stage, by prompt id, each in round order.
        samples: those of the sample stage, by prompt id.
        options: what the SFT data is made with.
        titles: titles of principles by id, shown beside the ids.

    Raises:
        InputError: nothing has that id, or several start so.
    """
    asked = id.strip()
    fits = partial(is_named, asked)
    hits: dict[str, str] = {}  # full id of what fits -> what it is
    owner: dict[str, str] = {}  # id of a response that fits -> its prompt's id
    samples = samples or {}
    for prompt_id, chain in (*responses.items(), *samples.items()):
        for response in chain:
            if fits(response.id):
                hits[response.id], owner[response.id] = "response", prompt_id
        if fits(prompt_id):
            hits[prompt_id] = "prompt"
    wanted = set(owner.values())
    kept: dict[str, Prompt] = {}
    for prompt in prompts:
        if fits(prompt.id):
            hits[prompt.id] = "prompt"
        if fits(prompt.id) or prompt.id in wanted:
            kept.setdefault(prompt.id, prompt)
    given_up: list[Quarantined] = []
    for row in quarantined:
        names = _names(row)
        for name in filter(fits, names):
            hits.setdefault(name, "quarantined")
        if wanted & names or any(map(fits, names)):
            given_up.append(row)
    full = _the_one(asked, hits)
    prompt_id = owner.get(full, full)
    found = kept.get(prompt_id)
    chain = responses.get(prompt_id, ())
    steps = choose(found, chain, options) if found else tuple(Choice(r, None, "prompt_gone") for r in chain)
    return Explanation(
        id=full,
        kind=hits[full],  # type: ignore[arg-type]
        prompt=found,
        steps=(*steps, *(Choice(r, None, "sampled") for r in samples.get(prompt_id, ()))),
        quarantined=tuple(row for row in given_up if {full, prompt_id} & _names(row)),
        split=split_of(found, options.test_fraction, options.seed) if found else None,
        titles=titles or {},
    )


def _names(row: Quarantined) -> set[str]:
    """The ids that a quarantined row can be asked for by: its own, and those in the input it was given up with."""
    inside = (row.input.get("id"), row.input.get("prompt_id"))
    return {row.id, *(name for name in inside if isinstance(name, str))}


def _the_one(asked: str, hits: Mapping[str, str]) -> str:
    if asked in hits:
        return asked
    if len(asked) < SHORTEST:
        raise InputError("too short for the start of an id", where=asked or "id", mend=f"give {SHORTEST} characters")
    if not hits:
        raise InputError(
            "no prompt, response, quarantined row or preference of this run has an id that starts so",
            where=asked,
            mend="take the `id` or `prompt_id` of a row of the run's files",
        )
    if len(hits) > 1:
        some = ", ".join(f"{kind} {full}" for full, kind in sorted(hits.items())[:4])
        more = f" and {len(hits) - 4} more" if len(hits) > 4 else ""
        raise InputError("several ids start so", where=asked, mend=f"give more characters of one of: {some}{more}")
    return next(iter(hits))


def render(explanation: Explanation) -> Group:
    """The explanation for a terminal. Texts of models and users are shown literally: no markup, no control codes."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    def panel(title: str, *parts: RenderableType, marked: bool = False) -> Panel:
        style = "bold" if marked else "dim"
        return Panel(Group(*parts), title=Text(visible(title)), title_align="left", border_style=style)

    def body() -> Iterator[RenderableType]:
        yield Text(visible(f"{explanation.kind} {explanation.id}"), style="bold")
        yield Text(visible(explanation.verdict))
        prompt = explanation.prompt
        if prompt:
            facts = {"prompt": prompt.id, "source": prompt.source, "tags": ", ".join(prompt.tags)}
            facts["overrides"] = ", ".join(prompt.overrides)
            yield _facts(facts)
            for turn in prompt.messages:
                yield panel(turn.role, Text(visible(turn.content)))
        for step in explanation.steps:
            response = step.response
            asked = response.id == explanation.id
            yield panel(_heading(step), *_told(explanation, step), marked=asked)
        for row in explanation.quarantined:
            given = [] if prompt else [_facts({"input": _json(row.input)})]
            yield panel(f"given up in {row.stage}: {row.reason}", Text(visible(row.detail)), *given)

    return Group(*body())


def _heading(step: Choice) -> str:
    response = step.response
    if step.reason == "sampled":
        return f"sample {response.sampling['sample']} of {response.sampling['source']}"
    return f"round {response.round}: revision" if response.round else "draft"


def _told(explanation: Explanation, step: Choice) -> Iterator[RenderableType]:
    from rich.text import Text

    response = step.response
    principles = [f"{i} ({explanation.titles[i]})" if i in explanation.titles else i for i in response.principle_ids]
    if principles:
        yield _facts({"principles": ", ".join(principles)})
    for number, attempt in enumerate(response.attempts, start=1):
        step_name, flags = attempt.get("step", "step"), ", ".join(map(str, attempt.get("flags") or ()))
        yield Text(visible(f"attempt {number}, {step_name} thrown away ({flags}):"), style="bold")
        yield Text(visible(str(attempt.get("text", ""))), style="dim")
    if response.critique is not None:
        yield Text("critique:", style="bold")
        yield Text(visible(response.critique))
    yield Text("revision:" if response.round else "answer:", style="bold")
    yield Text(visible(response.text))
    yield _facts(
        {
            "flags": ", ".join(response.flags),
            "critique's flags": ", ".join(response.critique_flags),
            "tokens": str(response.tokens),
            "finish": response.finish_reason,
            "model": response.model,
            "critique by": response.critique_model if response.critique_model != response.model else "",
            "sampling": _json(response.sampling),
            "id": response.id,
            "parent": response.parent_id,
        }
    )
    yield Text(visible(explanation.sentence(step)), style="green" if step.kind else "yellow")


def _facts(facts: Mapping[str, str | None]) -> RenderableType:
    """`name: value` lines, empty ones left out."""
    from rich.text import Text

    lines = [visible(f"{name}: {value}") for name, value in facts.items() if value]
    return Text("\n".join(lines), style="cyan")


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, default=str)


def visible(text: str) -> str:
    """`text` as a terminal can print it: control codes (which could move the cursor or hide words) are spelled out."""
    unix = utf8(text).replace("\r\n", "\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", lambda m: f"<U+{ord(m[0]):04X}>", unix)
