"""Pairs per second of the log-probability judge, beside raw vLLM doing the same scoring and beside chain of thought.

    python -m benchmarks.judge_speed [--groups 16] [--answers 4] [--cot-groups 3] [--repeats 3]

Answers to shipped prompts are generated first, untimed; a group of K answers is judged in all its C(K, 2) pairs and
both orders, as `cai judge` does. Then, in one engine, alternating, prefix cache cleared before each:

- `logprob`: the judge as `cai judge` runs it, with its request log;
- `raw`: vLLM's own entry point, given the same token ids and the same two tokens to score, all at once: the bound;
- `cot1`, `cot5`: a rationale of at most 256 tokens first, one sample and five;
- `principles`: all judge's questions of the default constitution on every pair: what the layout of the prompt, question
  last, gives the prefix cache;
- `logprob, alone`, `cot1, alone`: the same of pairs that share no answer (one pair of each group), where nothing but
  what two orders have in common is in the cache.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import GPU, report
from benchmarks.revise_speed import MODEL, rows
from cai.backends import vllm
from cai.constitution import load_constitution
from cai.engine import Completion, Engine, Generate, Request, Sampling
from cai.judges import cot, logprob
from cai.judging import Question
from cai.processor import resolved_dtype
from cai.records import Candidate, Comparison, Group
from cai.scheduler import run_rows
from cai.stages import judge
from cai.store import Log

SEATS = 256 if GPU else 64


Groups = Sequence[Sequence[Comparison]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--answers", type=int, default=4, help="answers a group")
    parser.add_argument("--cot-groups", type=int, default=3, help="groups for the slow ways")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", type=Path, default=MODEL)
    options = parser.parse_args()
    config = vllm.Config(model=str(options.model), context=2048, seats=SEATS, compile="auto" if GPU else "no")
    backend = vllm.build(config, seed=0)
    models = {"judge": backend.fingerprint}
    groups = asyncio.run(answered(options.groups, options.answers, backend))
    few = groups[: options.cot_groups]
    scorer = logprob.build(logprob.Config(), models=models, seed=0)
    thinkers = {k: cot.build(cot.Config(max_tokens=256, samples=k), models=models, seed=0) for k in (1, 5)}
    constitution = load_constitution("default")
    plan = judge.Plan(constitution, scorer, "all", (), 0)
    found: dict[str, list[tuple[float, float]]] = {}
    read: dict[str, dict[str, float]] = {}

    def general(pair: Comparison) -> Sequence[Question]:
        return [Question()]

    def all_principles(pair: Comparison) -> Sequence[Question]:
        return judge.questions(plan, pair.prompt, pair.id)

    ways: dict[str, tuple[Groups, Any, Callable[[Comparison], Sequence[Question]]]] = {
        "principles": (few, scorer, all_principles),
        "cot1": (few, thinkers[1], general),
        "cot5": (few[:1], thinkers[5], general),
        "logprob, alone": ([group[:1] for group in groups], scorer, general),
        "cot1, alone": ([group[:1] for group in groups], thinkers[1], general),
    }

    def take(name: str, measured: tuple[float, float]) -> None:
        found.setdefault(name, []).append(measured)
        print(f"  {name}: {measured[0]:.2f} pairs/s, prefix hits {measured[1]:.2f}", file=sys.stderr, flush=True)

    asked: list[Request] = []  # by the judge in an untimed run, so that raw vLLM can go first as often as last
    asyncio.run(judged(groups, scorer, general, backend, asked))
    for number in range(options.repeats):
        for name in ("logprob", "raw")[:: -1 if number % 2 else 1]:
            backend._engine.reset_prefix_cache()
            if name == "logprob":
                take(name, asyncio.run(judged(groups, scorer, general, backend, tokens=read.setdefault(name, {}))))
            else:
                take(name, raw(asked, backend, sum(map(len, groups))))
        for name, (some, method, questions) in ways.items():
            backend._engine.reset_prefix_cache()
            take(name, asyncio.run(judged(some, method, questions, backend, tokens=read.setdefault(name, {}))))
    speed = {name: statistics.median(pair[0] for pair in values) for name, values in found.items()}
    hits = {name: round(values[-1][1], 3) for name, values in found.items()}
    count = len(constitution.judging)
    details = {
        "pairs_per_second": {name: [round(v, 3) for v, _ in values] for name, values in found.items()},
        "prefix_cache_hit_rate": hits,
        "tokens_a_pair": read,
        "pairs": {"logprob": sum(map(len, groups))} | {name: sum(map(len, some)) for name, (some, *_) in ways.items()},
        "answers_a_group": options.answers,
        "questions_per_pair_with_all_principles": count,
        "verdicts_per_second_with_all_principles": round(speed["principles"] * count, 2),
        "ratio_to_cot_with_five_samples": round(speed["logprob"] / speed["cot5"], 2),
        "ratio_to_cot_of_pairs_alone": round(speed["logprob, alone"] / speed["cot1, alone"], 2),
        "verdicts_with_all_principles_by_cot_verdicts": round(speed["principles"] * count / speed["cot1"], 2),
        "model": f"{options.model.name}, {resolved_dtype(config.dtype)}, {'compiled' if GPU else 'eager'}",
        "seats": SEATS,
    }
    by_name = (
        ("judge_vs_raw", speed["logprob"] / speed["raw"], 0.9, "ratio of pairs per second"),
        ("judge_vs_cot", speed["logprob"] / speed["cot1"], 20.0, "ratio of pairs per second, one sample"),
        ("judge_prefix_hits", hits["principles"], 0.7, "share of prompt tokens from the prefix cache"),
    )
    for claim, value, threshold, unit in by_name:
        report(
            claim=claim,
            value=round(value, 3),
            threshold=threshold,
            holds=value >= threshold,
            unit=unit,
            details=details,
        )


async def answered(count: int, answers: int, backend: Any) -> Groups:
    """The comparisons of `answers` answers by the model itself to each of `count` shipped prompts."""
    engine = Engine({"policy": backend})
    prompts = rows(count)
    asked = [
        engine.generate(Request(prompt.messages, Sampling(max_tokens=96, temperature=0.7), seed))
        for prompt in prompts
        for seed in range(answers)
    ]
    texts = [completion.text.strip() for completion in await asyncio.gather(*asked)]
    found: list[Sequence[Comparison]] = []
    for index, prompt in enumerate(prompts):
        mine = dict.fromkeys(text for text in texts[index * answers : (index + 1) * answers] if text)
        if len(mine) > 1:
            candidates = [Candidate(str(number), text) for number, text in enumerate(mine)]
            found.append(Group.make(prompt, candidates).comparisons())
    return found


async def judged(
    groups: Groups,
    method: Any,
    questions: Callable[[Comparison], Sequence[Question]],
    backend: Any,
    kept: list[Request] | None = None,
    tokens: dict[str, float] | None = None,
) -> tuple[float, float]:
    """Pairs per second, and the share of prompt tokens that the prefix cache held.

    Args:
        kept: is given the requests that were made.
        tokens: is given how many tokens a pair took.
    """
    with tempfile.TemporaryDirectory() as folder, Log(Path(folder) / "requests.jsonl", key="key") as log:
        engine = Engine({"judge": backend}, log)

        async def generate(request: Request) -> Completion:
            if kept is not None:
                kept.append(request)
            return await engine.generate(request)

        async def one(group: Sequence[Comparison], ask: Generate) -> None:
            asked: list[Awaitable[Any]] = [
                method(pair, question, ask) for pair in group for question in questions(pair)
            ]
            await asyncio.gather(*asked)

        begun = time.perf_counter()
        async for done in run_rows(groups, one, generate, in_flight=SEATS):
            if done.error is not None:
                raise done.error
        seconds = time.perf_counter() - begun
    usage = engine.usage
    if tokens is not None:
        pairs = sum(map(len, groups))
        tokens["computed_of_prompts"] = round((usage.fresh_prompt_tokens - usage.cached_prompt_tokens) / pairs, 1)
        tokens["generated"] = round(usage.fresh_completion_tokens / pairs, 1)
    return sum(map(len, groups)) / seconds, usage.cached_prompt_tokens / max(1, usage.fresh_prompt_tokens)


def raw(requests: Sequence[Request], backend: Any, pairs: int) -> tuple[float, float]:
    """The same scoring by vLLM's own entry point."""
    from vllm import SamplingParams, TokensPrompt

    inputs = [TokensPrompt(prompt_token_ids=backend.tokens(request.prompt)) for request in requests]
    wanted = [token for variants in backend.choice_tokens(requests[0].choices) for token in variants]
    params = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=wanted)
    begun = time.perf_counter()
    outputs = backend._llm.generate(inputs, params, use_tqdm=False)
    seconds = time.perf_counter() - begun
    read = sum(len(output.prompt_token_ids) for output in outputs)
    return pairs / seconds, sum(output.num_cached_tokens or 0 for output in outputs) / read


if __name__ == "__main__":
    main()
