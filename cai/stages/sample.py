"""Sampling: several answers to each prompt, which a judge will compare.

Each source (a model, checkpoint or temperature) gives so many answers; what critique and revision made of the same
prompt can join them. All are kept. Those that say the same as an earlier one are recorded as its duplicates and not
compared: a verdict between them would be noise with a label's looks. An answer that a backend refuses is recorded
without text, and the others are compared; a backend that fails otherwise ends the row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai import faults
from cai.engine import Generate, Request, Sampling
from cai.errors import PromptRefused
from cai.records import Candidate, Group, Prompt, Quarantined, Response, content_hash
from cai.scheduler import together
from cai.stages import alike
from cai.stages.revise import unanswered
from cai.stages.transcript import Transcript

STAGE = "sample"
MOST = 16
"""Answers that one group may hold; a listwise judge names them by the letters A to P."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where answers come from.

    Attributes:
        name: what the answers carry; unique among the sources.
        model: role of the model.
        count: answers per prompt.
    """

    name: str
    model: str
    count: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Plan:
    """The stage's parameters; see `cai.recipe.SampleConfig` for their meaning."""

    sources: tuple[Source, ...]
    transcript: Transcript
    seed: int
    include: frozenset[str]
    near_duplicate: float

    def largest(self, rounds: int, drafts: int) -> int:
        """The most answers that a group can hold, where the revise stage has so many rounds, or so many drafts of a
        prompt that it only answers."""
        revisions = rounds if "revisions" in self.include else min(rounds, "last_revision" in self.include)
        draft = "draft" in self.include
        return min(MOST, sum(source.count for source in self.sources) + max(draft + revisions, draft * drafts))


@dataclass(frozen=True, slots=True)
class Sampled:
    """What became of one prompt: its fresh answers in the order of the sources; the reason if there is none."""

    prompt_id: str
    responses: tuple[Response, ...]
    quarantined: Quarantined | None = None


def method(plan: Plan) -> Callable[[Prompt, Generate], Awaitable[Sampled]]:
    """Sampling as a coroutine over one prompt. All its answers are asked at once: they share the prompt's prefix."""

    async def sample(prompt: Prompt, generate: Generate) -> Sampled:
        asked = [(source, number) for source in plan.sources for number in range(source.count)]
        found = await together(_one(plan, prompt, source, number, generate) for source, number in asked)
        errors = [each for each in found if isinstance(each, PromptRefused)]
        if errors and len(errors) == len(found):
            raise errors[-1]
        responses = [
            unanswered(prompt, _said(plan, prompt, source, number), each) if isinstance(each, PromptRefused) else each
            for (source, number), each in zip(asked, found, strict=True)
        ]
        return Sampled(prompt.id, tuple(responses))

    return sample


def _said(plan: Plan, prompt: Prompt, source: Source, number: int) -> dict[str, Any]:
    """What an answer carries of how it was asked."""
    seed = int(content_hash(plan.seed, prompt.id, STAGE, source.name, number, length=8), 16) & 0x7FFFFFFF
    said = {"source": source.name, "sample": number, "seed": seed, **dataclasses.asdict(source.sampling)}
    said.pop("stop")
    return said


async def _one(plan: Plan, prompt: Prompt, source: Source, number: int, generate: Generate) -> Response | PromptRefused:
    said = _said(plan, prompt, source, number)
    sampling = dataclasses.replace(source.sampling, stop=plan.transcript.stops)
    request = Request(plan.transcript.draft(prompt.messages), sampling, said["seed"], source.model)
    try:
        completion = await generate(request)
    except PromptRefused as error:
        return error
    text = plan.transcript.said(completion.text)
    return Response(
        id=content_hash(prompt.id, STAGE, completion.model, said, text),
        prompt_id=prompt.id,
        round=0,
        text=text,
        model=completion.model,
        sampling=said,
        finish_reason=completion.finish_reason,
        flags=faults.draft_flags(text, finish_reason=completion.finish_reason, prompt=prompt.messages),
        tokens=completion.completion_tokens,
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The answers to one prompt that can be compared.

    Attributes:
        group: None where fewer than two different answers are left; `reason` says so.
        duplicates: of each answer left out for saying the same as an earlier one, that one's id.
        left_out: ids of answers that cannot be compared at all (empty ones, and those beyond `MOST`).
    """

    group: Group | None
    duplicates: Mapping[str, str]
    left_out: tuple[str, ...]
    reason: str = ""


def gather(prompt: Prompt, sampled: Sequence[Response], revised: Sequence[Response], plan: Plan) -> Gathered:
    """The group of a prompt: its samples, and those of the revise stage's responses that the plan includes.

    Args:
        revised: the prompt's responses of the revise stage, in round order.
    """
    kept: list[Candidate] = []
    duplicates: dict[str, str] = {}
    left_out: list[str] = []
    for response in (*_included(revised, plan.include), *sampled):
        if not response.text.strip():
            left_out.append(response.id)
            continue
        twin = next((k for k in kept if alike.same(response.text, k.text, threshold=plan.near_duplicate)), None)
        if twin is not None:
            if twin.id != response.id:
                duplicates[response.id] = twin.id
        elif len(kept) == MOST:
            left_out.append(response.id)
        else:
            kept.append(Candidate(response.id, response.text))
    if len(kept) < 2:
        reason = "all_alike" if duplicates else "one_answer" if kept else "no_answer"
        return Gathered(None, duplicates, tuple(left_out), reason)
    return Gathered(Group.make(prompt, kept), duplicates, tuple(left_out))


def _included(revised: Sequence[Response], include: frozenset[str]) -> list[Response]:
    """Drafts, clean revisions of all rounds, or the last of them."""
    clean = [r for r in revised if r.round > 0 and not faults.BLOCKING.intersection(r.flags)]
    found = [r for r in revised if r.round == 0] if "draft" in include else []
    return found + (clean if "revisions" in include else clean[-1:] if "last_revision" in include else [])


def nothing_to_compare(prompt: Prompt, reason: str) -> Quarantined:
    """The record of a prompt that gave no group."""
    details = {
        "no_answer": "none of its answers holds any text",
        "one_answer": "it has only one answer, so there is nothing to compare",
        "no_question": "its overrides set aside every principle that the judge could be asked about",
        "all_alike": "its answers all say the same, so there is nothing to compare",
    }
    return Quarantined(id=prompt.id, stage=STAGE, reason=reason, detail=details[reason], input=prompt.row())
