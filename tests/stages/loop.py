"""A constitution, a plan and a model that answers as it is told, for the tests of the loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cai.backends import scripted
from cai.constitution.load import Bound, Constitution, assemble
from cai.constitution.model import ConstitutionFile, Principle
from cai.engine import Backend, Completion, Engine, Request, Sampling
from cai.records import Prompt
from cai.stages import revise
from cai.stages.transcript import Transcript

SHOT = {
    "prompt": "Shot prompt?",
    "response": "Shot response.",
    "critique_request": "Shot critique request.",
    "critique": "Shot critique.",
    "revision_request": "Shot revision request.",
    "revision": "Shot revision.",
}


PROMPTS = [Prompt.make(f"How do I mend thing number {n}?") for n in range(40)]


def constitution(
    names: Sequence[str] = ("a", "b", "c"),
    *,
    words: Mapping[str, str] | None = None,
    level: str = "goal",
    levels: Mapping[str, str] | None = None,
    **parts: Any,
) -> Constitution:
    """Principles whose critique requests are `Critique NAME.` or as in `words`."""
    level_of = {name: (levels or {}).get(name, level) for name in names}
    given = [{"id": name, "level": level_of[name]} for name in names]
    file = ConstitutionFile.model_validate({"name": "test", "principles": given, **parts})
    ranks = {each.name: rank for rank, each in enumerate(file.levels)}
    bounds = []
    for name in names:
        critique = (words or {}).get(name, f"Critique {name}.")
        principle = Principle(id=name, title=name, critique=critique, revision=f"Revise {name}.")
        bounds.append(Bound(principle, 1.0, file.levels[ranks[level_of[name]]], ranks[level_of[name]]))
    return assemble(file, tuple(bounds), Path("test.yaml"))


def plan(
    of: Constitution | None = None,
    *,
    style: Literal["chat", "base"] = "chat",
    few_shot: int | None = None,
    **changes: Any,
) -> revise.Plan:
    of = of or constitution()
    critique = changes.get("critique", True)
    given: dict[str, Any] = {
        "constitution": of,
        "transcript": Transcript(of, style=style, few_shot=few_shot, critique=critique),
        "seed": 1,
        "rounds": 2,
        "principles_per_critique": 1,
        "critique": True,
        "unrevised_tags": frozenset({"helpful"}),
        "unrevised_samples": 1,
        "retries": 1,
        "draft": Sampling(max_tokens=101),
        "critic": Sampling(max_tokens=102),
        "revision": Sampling(max_tokens=103),
    }
    return revise.Plan(**(given | changes))


class Model:
    """Answers as `answer` says (None: some words of its own), and remembers what it was asked."""

    context = 1 << 30
    seats = 4

    def __init__(self, answer: Callable[[Request], str | None] = lambda request: None, name: str = "m@1") -> None:
        self.fingerprint = name
        self.asked: list[Request] = []
        self._answer = answer

    async def generate(self, request: Request) -> Completion:
        self.asked.append(request)
        text = self._answer(request)
        if text is None:
            text = " ".join(random.Random(request.seed).choices(scripted.WORDS, k=12)).capitalize() + "."
        length = len(text.split())
        return Completion(text, "length" if "cut" in text else "stop", 1, length, model=self.fingerprint)

    async def close(self) -> None:
        return None

    def of(self, role: str) -> list[Request]:
        return [request for request in self.asked if request.model == role]


def go(with_plan: revise.Plan, prompt: Prompt, model: Backend | Mapping[str, Backend]) -> revise.Chain:
    roles = model if isinstance(model, Mapping) else dict.fromkeys(("policy", "critic", "reviser"), model)
    return asyncio.run(_go(with_plan, prompt, roles))


async def _go(with_plan: revise.Plan, prompt: Prompt, roles: Mapping[str, Backend]) -> revise.Chain:
    return await revise.method(with_plan)(prompt, Engine(roles).generate)


def text_of(request: Request) -> str:
    return request.prompt if isinstance(request.prompt, str) else "\n".join(m.content for m in request.prompt)
