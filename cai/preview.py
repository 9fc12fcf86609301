"""One prompt through the loop, nothing kept: what a principle or a whole constitution does to a real answer.

The steps are those of a run (`cai.stages.revise`); what is asked is recorded word for word beside what came of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cai import plugins, yamlfile
from cai.asking import backend_of
from cai.constitution.load import Bound, Constitution, assemble, load_constitution
from cai.constitution.model import DEFAULT_LEVELS, ConstitutionFile, Principle, Selector
from cai.constitution.named import principle_named
from cai.engine import Backend, Completion, Engine, Request, Sampling
from cai.errors import InputError
from cai.records import Message, Prompt
from cai.stages import revise
from cai.stages.transcript import Transcript
from cai.yamlfile import Document

STEPS = {"policy": "draft", "critic": "critique", "reviser": "revision"}
"""By role: here each step has one of its own."""

DEFAULT_MODEL = Path(".build/smollm2-135m-instruct")
"""What `make model` builds."""


@dataclass(frozen=True)
class Options:
    """How the loop is run; as in a recipe."""

    rounds: int = 1
    max_tokens: int = 256
    temperature: float = 1.0
    seed: int = 0
    style: Literal["chat", "base"] = "chat"
    retries: int = 1


@dataclass(frozen=True)
class Exchange:
    """One request of the loop and what came back."""

    step: str
    request: Request
    completion: Completion

    @property
    def asked(self) -> str:
        """The end of what was asked: the last turn; of a plain transcript, its last request."""
        prompt = self.request.prompt
        if isinstance(prompt, str):
            label = {"draft": "Human: ", "critique": "CritiqueRequest: ", "revision": "RevisionRequest: "}[self.step]
            return prompt.rpartition(label)[2].rpartition("\n\n")[0]
        return prompt[-1].content

    @property
    def context(self) -> tuple[Message, ...]:
        """Everything before `asked`, as far as it has turns."""
        return () if isinstance(self.request.prompt, str) else self.request.prompt[:-1]

    def row(self) -> dict[str, Any]:
        prompt = self.request.prompt
        said = {"prompt": prompt} if isinstance(prompt, str) else {"messages": [turn.row() for turn in prompt]}
        return {
            "step": self.step,
            **said,
            "sampling": {"seed": self.request.seed, **dataclasses.asdict(self.request.sampling)},
            "completion": dataclasses.asdict(self.completion),
        }


@dataclass(frozen=True)
class Preview:
    """What became of the prompt, with every request in the order in which it was asked."""

    constitution: Constitution
    prompt: Prompt
    chain: revise.Chain
    exchanges: tuple[Exchange, ...]

    def requests(self, round: int, step: str) -> list[Exchange]:
        """The requests of one step of a round, retries included (a draft is round 0)."""
        begin = 0
        for response in self.chain.responses:
            # A skipped round may have asked for no critique yet (it did not fit), and never for a revision.
            done = {"critique": response.critique is not None, "revision": response.finish_reason != "skipped"}
            for name in done if response.round else ("draft",):
                tries = done.get(name, True) + sum(attempt["step"] == name for attempt in response.attempts)
                if (response.round, name) == (round, step):
                    return list(self.exchanges[begin : begin + tries])
                begin += tries
        return []

    def tokens(self) -> dict[str, int]:
        """Read and generated, all requests together."""
        return {
            "prompt": sum(exchange.completion.prompt_tokens for exchange in self.exchanges),
            "completion": sum(exchange.completion.completion_tokens for exchange in self.exchanges),
        }

    def row(self) -> dict[str, Any]:
        """JSON object."""
        asked = {name for response in self.chain.responses for name in response.principle_ids}
        return {
            "constitution": self.constitution.name,
            "prompt": self.prompt.row(),
            "principles": {
                b.id: {"title": b.principle.title, "critique": b.principle.critique, "revision": b.principle.revision}
                for b in self.constitution.principles
                if b.id in asked
            },
            "responses": [{**r.row(), "sampling": dict(r.sampling)} for r in self.chain.responses],
            "quarantined": self.chain.quarantined.row() if self.chain.quarantined else None,
            "requests": [exchange.row() for exchange in self.exchanges],
            "tokens": self.tokens(),
        }


def find(name: str, principle: str = "") -> Constitution:
    """The constitution to try: `name` is one (name, file or run), or a principle (id or file) tried on its own.

    Args:
        principle: only this one of the constitution is drawn; its examples, templates and rules stay.

    Raises:
        InputError: nothing is called so, or the principle asks for no critique.
        InvalidFile: it is wrong; every problem with its position.
    """
    found = principle_named(name)
    if found is not None:
        if principle and principle != found.id:
            raise InputError(f"{name} is the principle {found.id!r} itself", where="--principle", mend="leave it out")
        return _alone(found)
    constitution = load_constitution(name)
    if principle:
        kept = constitution.get(principle)
        _must_revise(kept.principle)
        others = (dataclasses.replace(bound, weight=float(bound.id == kept.id)) for bound in constitution.principles)
        constitution = dataclasses.replace(constitution, principles=tuple(others))
    if not constitution.revising:
        raise InputError("none of its principles has a critique request and a weight above 0", where=constitution.name)
    return constitution


def _must_revise(principle: Principle) -> None:
    if not principle.revises:
        raise InputError(
            "it is for judging only",
            where=f"principle {principle.id}",
            mend="give it `critique` and `revision` to have answers revised by it",
        )


def _alone(principle: Principle) -> Constitution:
    _must_revise(principle)
    file = ConstitutionFile(name=principle.id, principles=(Selector(id=principle.id),))
    return assemble(file, (Bound(principle, 1.0, DEFAULT_LEVELS[0], 0),), Path(f"{principle.id}.yaml"))


def chosen(backend: str, *, model: str, url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the one backend that plays every role; without any, vLLM with the demo's model.

    Raises:
        InputError: that is not there; or see `cai.asking.backend_of`.
    """
    if backend in ("", "vllm") and not (model or url or options.get("model")):
        if not DEFAULT_MODEL.is_dir():
            raise InputError(
                "there is no model to ask",
                where=str(DEFAULT_MODEL),
                mend="give --model FOLDER; or --url URL with --model NAME; or --backend scripted to see the steps "
                "without a model; in a checkout of cai, `make model` builds a small one",
            )
        model = str(DEFAULT_MODEL)
    return backend_of(backend, model=model, url=url, options=options)


def build(backend: str, options: Mapping[str, Any], *, seed: int) -> Backend:
    """The backend, its model loaded.

    Raises:
        InvalidFile, InputError: an unknown backend or option; no such model.
    """
    module = plugins.load("cai.backends", backend)
    config = yamlfile.validate(Document("--backend-set", dict(options), {}, {}), module.Config)
    built: Backend = module.build(config, seed=seed, expected_tokens=0)
    return built


def preview(constitution: Constitution, text: str, ask: Backend, options: Options) -> Preview:
    """Take `text` through draft, critiques and revisions; closes the backend.

    Raises:
        CaiError: the prompt is blank or does not fit, or the backend failed.
    """
    if not text.strip():
        raise InputError("is blank", where="--prompt")
    prompt = Prompt.make(text, source="--prompt")
    sampling = Sampling(max_tokens=options.max_tokens, temperature=options.temperature)
    plan = revise.Plan(
        constitution=constitution,
        transcript=Transcript(constitution, style=options.style, few_shot=None, critique=True),
        seed=options.seed,
        rounds=options.rounds,
        principles_per_critique=1,
        critique=True,
        unrevised_tags=frozenset(),
        unrevised_samples=1,
        retries=options.retries,
        draft=sampling,
        critic=sampling,
        revision=sampling,
    )
    return asyncio.run(_preview(plan, prompt, dict.fromkeys(STEPS, ask)))


async def _preview(plan: revise.Plan, prompt: Prompt, backends: Mapping[str, Backend]) -> Preview:
    engine = Engine(backends)
    exchanges: list[Exchange] = []

    async def generate(request: Request) -> Completion:
        completion = await engine.generate(request)
        exchanges.append(Exchange(STEPS[request.model], request, completion))
        return completion

    try:
        chain = await revise.method(plan)(prompt, generate)
    finally:
        await engine.close()
    return Preview(plan.constitution, prompt, chain, tuple(exchanges))
