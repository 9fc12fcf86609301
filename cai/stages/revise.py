"""Critique and revise: the supervised stage of Constitutional AI.

Bai et al. 2022 (arXiv 2212.08073), section 3: a draft, then `rounds` times a critique under a principle drawn anew
and a revision. Every step is kept. What a model does wrong is flagged (`cai.faults`), drawn again a few times and never
passed on: a round whose revision stays faulty leaves the answer as it was, and the next round starts from there.

A critique is not an answer, and a clumsy one (cut off, in a loop, going on to write the revision) may still lead to a
good revision, so it is used with its flags. One that says nothing of the answer (empty, a bare refusal, or the answer
again) leaves the reviser nothing to go by: it is drawn again, and if that does not help the round is skipped. So is a
round that a backend refuses (a server's filter), and one that does not fit into the context, which is also the last
one: the answer is as long in the next. A skipped round is a response without text that carries the reason as its flag;
what was asked before it counts as ever. A backend that fails otherwise ends the row: it may only be ill, and what it
has answered is in the request log when the row is asked again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cai import faults
from cai.constitution.draw import draw, set_aside
from cai.constitution.load import Constitution
from cai.engine import Completion, Generate, Request, Sampling
from cai.errors import ContextOverflow, PromptRefused
from cai.judging import refused
from cai.records import Messages, Prompt, Quarantined, Response, content_hash
from cai.stages.transcript import Asked, Transcript, wording

STAGE = "revise"


@dataclass(frozen=True, slots=True)
class Plan:
    """The loop's parameters; see `cai.recipe.ReviseConfig` for their meaning."""

    constitution: Constitution
    transcript: Transcript
    seed: int
    rounds: int
    principles_per_critique: int
    critique: bool
    unrevised_tags: frozenset[str]
    unrevised_samples: int
    retries: int
    draft: Sampling
    critic: Sampling
    revision: Sampling

    def revises(self, prompt: Prompt) -> bool:
        """Whether the loop applies to this prompt, or it is only answered."""
        return self.rounds > 0 and not self.unrevised_tags.intersection(prompt.tags)

    @property
    def roles(self) -> tuple[str, ...]:
        """The models that take part."""
        if not self.rounds:
            return ("policy",)
        return ("policy", "critic", "reviser") if self.critique else ("policy", "reviser")

    @property
    def most_drafts(self) -> int:
        """The most drafts that a prompt can have."""
        return self.unrevised_samples if self.unrevised_tags or not self.rounds else 1


@dataclass(frozen=True, slots=True)
class Chain:
    """What became of one prompt: its responses in the order in which they arose; the reason if it yields no row."""

    prompt_id: str
    responses: tuple[Response, ...]
    quarantined: Quarantined | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """The last try at a step, with what the tries before it got wrong."""

    completion: Completion
    text: str
    flags: tuple[str, ...]
    seed: int
    attempts: tuple[dict[str, Any], ...]
    tokens: int


def method(plan: Plan) -> Callable[[Prompt, Generate], Awaitable[Chain]]:
    """The loop as a coroutine over one prompt; it knows nothing of servers, batches or files."""

    async def revise(prompt: Prompt, generate: Generate) -> Chain:
        if not plan.revises(prompt):
            drafts = await _unrevised(plan, prompt, generate)
            return Chain(
                prompt.id, tuple(drafts), None if any(_usable(d) for d in drafts) else _faulty(prompt, drafts[-1])
            )
        if all(set_aside(bound, prompt.overrides) for bound in plan.constitution.revising):
            return Chain(prompt.id, (), _unguided(plan, prompt))
        responses = [await _draft(plan, prompt, generate, 0)]
        answer = responses[0]
        if "empty" in answer.flags:
            return Chain(prompt.id, tuple(responses), _faulty(prompt, answer))
        error: PromptRefused | None = None
        for number in range(1, plan.rounds + 1):
            response, error = await _round(plan, prompt, answer, number, generate)
            responses.append(response)
            if isinstance(error, ContextOverflow):
                break
            if _usable(response):
                answer = response
        quarantined = None
        if answer is responses[0]:
            quarantined = _unanswered(prompt, responses[-1], error) if error else _faulty(prompt, responses[-1])
        return Chain(prompt.id, tuple(responses), quarantined)

    return revise


def _usable(response: Response) -> bool:
    return not faults.BLOCKING.intersection(response.flags)


def _unguided(plan: Plan, prompt: Prompt) -> Quarantined:
    detail = (
        f"its overrides ({', '.join(prompt.overrides)}) set aside every principle of the constitution "
        f"{plan.constitution.name!r} that a critique can draw"
    )
    return Quarantined(id=prompt.id, stage=STAGE, reason="no_principle", detail=detail, input=prompt.row())


def _unanswered(prompt: Prompt, response: Response, error: PromptRefused) -> Quarantined:
    reason, did = ("too_long", "did not fit") if isinstance(error, ContextOverflow) else ("backend", "was refused")
    detail = f"round {response.round} {did}, and no round before it gave a clean revision; {error}"
    return Quarantined(id=prompt.id, stage=STAGE, reason=reason, detail=detail, input=prompt.row())


def _faulty(prompt: Prompt, response: Response) -> Quarantined:
    flags = ", ".join(flag for flag in response.flags if flag in faults.BLOCKING)
    if response.round == 0:
        reason, detail = "faulty_draft", f"the draft is faulty: {flags}"
    else:
        reason, detail = "no_clean_revision", f"no round gave a clean revision; the last one: {flags}"
    return Quarantined(id=prompt.id, stage=STAGE, reason=reason, detail=detail, input=prompt.row())


async def _unrevised(plan: Plan, prompt: Prompt, generate: Generate) -> list[Response]:
    """The drafts of a prompt that is only answered; one that is refused is a response without text.

    Raises:
        PromptRefused: each was.
    """
    drafts: list[Response] = []
    errors: list[PromptRefused] = []
    for sample in range(plan.unrevised_samples):
        try:
            drafts.append(await _draft(plan, prompt, generate, sample))
        except PromptRefused as error:
            errors.append(error)
            said = {"seed": _seed(plan, prompt, (0, _draft_name(sample)), 0), **_told(plan.draft)}
            drafts.append(unanswered(prompt, said, error))
    if len(errors) == len(drafts):
        raise errors[-1]
    return drafts


def unanswered(prompt: Prompt, sampling: Mapping[str, Any], error: PromptRefused) -> Response:
    """The record of an answer that a backend refused: no text, no model, the reason as its flag."""
    reason = refused(error)
    return Response(
        id=content_hash(prompt.id, dict(sampling), reason),
        prompt_id=prompt.id,
        round=0,
        text="",
        model="",
        sampling=sampling,
        finish_reason="skipped",
        flags=(reason,),
    )


async def _draft(plan: Plan, prompt: Prompt, generate: Generate, sample: int) -> Response:
    def flags(completion: Completion, text: str) -> tuple[str, ...]:
        return faults.draft_flags(text, finish_reason=completion.finish_reason, prompt=prompt.messages)

    # A cut-off draft can still be criticised and revised; only as a training row of its own it is worth another try.
    tolerated = frozenset({"truncated"}) if plan.revises(prompt) else frozenset()
    step = await _step(
        plan,
        prompt,
        generate,
        "policy",
        plan.transcript.draft(prompt.messages),
        plan.draft,
        flags,
        (0, _draft_name(sample)),
        tolerated,
    )
    return _response(plan, prompt, step, number=0, sampling=plan.draft)


def _draft_name(sample: int) -> str:
    return f"draft{sample}" if sample else "draft"


async def _round(
    plan: Plan, prompt: Prompt, parent: Response, number: int, generate: Generate
) -> tuple[Response, PromptRefused | None]:
    """One round's revision, or what stands for it where the round was skipped; and the error if it was refused."""
    chosen = draw(
        plan.constitution,
        seed=plan.seed,
        prompt_id=prompt.id,
        round=number,
        count=plan.principles_per_critique,
        overrides=prompt.overrides,
    )
    asked = wording(plan.constitution, chosen)
    critique: _Step | None = None
    try:
        if plan.critique:
            critique = await _critique(plan, prompt, parent, asked, number, generate)
            if faults.SAYS_NOTHING.intersection(critique.flags):
                return _skipped(prompt, number, parent, asked, critique, "no_critique"), None
        step = await _revision(plan, prompt, parent, asked, critique, number, generate)
    except PromptRefused as error:
        return _skipped(prompt, number, parent, asked, critique, refused(error)), error
    revised = _response(
        plan, prompt, step, number=number, sampling=plan.revision, parent=parent, asked=asked, critique=critique
    )
    return revised, None


async def _critique(
    plan: Plan, prompt: Prompt, parent: Response, asked: Asked, number: int, generate: Generate
) -> _Step:
    def flags(completion: Completion, text: str) -> tuple[str, ...]:
        return faults.critique_flags(text, finish_reason=completion.finish_reason, response=parent.text)

    request = plan.transcript.for_critique(prompt.messages, parent.text, asked)
    tolerated = faults.BLOCKING - faults.SAYS_NOTHING
    return await _step(plan, prompt, generate, "critic", request, plan.critic, flags, (number, "critique"), tolerated)


async def _revision(
    plan: Plan,
    prompt: Prompt,
    parent: Response,
    asked: Asked,
    critique: _Step | None,
    number: int,
    generate: Generate,
) -> _Step:
    said = critique.text if critique else None

    def flags(completion: Completion, text: str) -> tuple[str, ...]:
        return faults.revision_flags(
            text, finish_reason=completion.finish_reason, parent=parent.text, critique=said, prompt=prompt.messages
        )

    request = plan.transcript.for_revision(prompt.messages, parent.text, asked, said)
    return await _step(
        plan, prompt, generate, "reviser", request, plan.revision, flags, (number, "revision"), frozenset()
    )


def _skipped(
    prompt: Prompt, number: int, parent: Response, asked: Asked, critique: _Step | None, reason: str
) -> Response:
    """The record of a round that was not brought to its end: no text, no model, the reason as its flag."""
    said = critique.text if critique else None
    return Response(
        id=content_hash(prompt.id, number, parent.id, asked.principle_ids, said, reason),
        prompt_id=prompt.id,
        round=number,
        text="",
        model="",
        sampling={},
        finish_reason="skipped",
        parent_id=parent.id,
        principle_ids=asked.principle_ids,
        critique=said,
        critique_model=critique.completion.model if critique else None,
        critique_flags=critique.flags if critique else (),
        flags=(reason,),
        attempts=critique.attempts if critique else (),
        tokens=critique.tokens if critique else 0,
    )


async def _step(
    plan: Plan,
    prompt: Prompt,
    generate: Generate,
    role: str,
    request: Messages | str,
    sampling: Sampling,
    flags_of: Callable[[Completion, str], tuple[str, ...]],
    place: tuple[int, str],
    tolerated: frozenset[str],
) -> _Step:
    """Ask until an answer has no blocking flag but the tolerated ones, at most `retries` times again.

    At temperature 0 it is asked once: it would be the same answer.
    """
    attempts: list[dict[str, Any]] = []
    tokens = 0
    for attempt in range(plan.retries + 1 if sampling.temperature else 1):
        seed = _seed(plan, prompt, place, attempt)
        stops = plan.transcript.stops
        completion = await generate(Request(request, dataclasses.replace(sampling, stop=stops), seed, role))
        text = plan.transcript.said(completion.text)
        flags = flags_of(completion, text)
        tokens += completion.completion_tokens
        step = _Step(completion, text, flags, seed, tuple(attempts), tokens)
        if not (faults.BLOCKING - tolerated).intersection(flags):
            break
        attempts.append(
            {"step": place[1], "text": text, "flags": list(flags), "finish_reason": completion.finish_reason}
        )
    return step


def _seed(plan: Plan, prompt: Prompt, place: tuple[int, str], attempt: int) -> int:
    # No part of it depends on the principles, so an edited text alone changes what is asked.
    return int(content_hash(plan.seed, prompt.id, *place, attempt, length=8), 16) & 0x7FFFFFFF


def _told(sampling: Sampling) -> dict[str, Any]:
    """The options that a response records; where it stops is the transcript's."""
    said = dataclasses.asdict(sampling)
    said.pop("stop")
    return said


def _response(
    plan: Plan,
    prompt: Prompt,
    step: _Step,
    *,
    number: int,
    sampling: Sampling,
    parent: Response | None = None,
    asked: Asked | None = None,
    critique: _Step | None = None,
) -> Response:
    said = {"seed": step.seed, **_told(sampling)}
    parent_id = parent.id if parent else None
    principles = asked.principle_ids if asked else ()
    model = step.completion.model
    key = content_hash(
        prompt.id, number, parent_id, principles, critique.text if critique else None, model, said, step.text
    )
    return Response(
        id=key,
        prompt_id=prompt.id,
        round=number,
        text=step.text,
        model=model,
        sampling=said,
        finish_reason=step.completion.finish_reason,
        parent_id=parent_id,
        principle_ids=principles,
        critique=critique.text if critique else None,
        critique_model=critique.completion.model if critique else None,
        critique_flags=critique.flags if critique else (),
        flags=step.flags,
        attempts=(*(critique.attempts if critique else ()), *step.attempts),
        tokens=step.tokens + (critique.tokens if critique else 0),
    )
