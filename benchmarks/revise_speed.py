"""Generated tokens per second of `cai revise` beside five other ways to do the same work.

    python -m benchmarks.revise_speed [--rows 512] [--seats 128] [--compile yes|no] [--only in_process,http,hf32,hf1]

All have the same model and prompts, and run one round of draft, critique and revision per prompt, with the shipped
constitution and its worked examples, on the shipped prompts (repeated with another number in front where more rows are
asked for, so that no two are equal):

- `cai`: the engine with its request log, as `cai revise` runs it;
- `raw`: vLLM given all the requests that `cai` made, finished texts filled in, at once: no dependency, so the bound;
- `waves`: all drafts, then all critiques, then all revisions, each wave waiting for its last row;
- `http`: one asyncio task a row against vLLM's OpenAI server, as llm-swarm's Constitutional AI example does;
- `hf32`, `hf1`: transformers' `generate` at batch 32 (in waves, sorted by length) and at batch 1.

`cai`, `raw` and `waves` share one engine and alternate, prefix cache cleared before each; the figure is the ratio of
medians. The others run in processes of their own right after, with what `cai` sets for itself on a processor: how long
OpenMP spins, that freed memory is kept, the server's blocks as short; and each has a first batch untimed. Output
lengths are drawn by the model, so tokens per second are compared, not seconds. Fewer rows for the slow ones.

Four rows a seat by default: the last rows of a run still have three steps to go one after another, with ever fewer
beside them, which `raw` has not. The share of that tail falls with rows per seat, and real runs have hundreds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import GPU, report
from cai import prompts
from cai.constitution import load_constitution
from cai.constitution.find import shipped_dir
from cai.engine import Completion, Engine, Request, Sampling
from cai.processor import resolved_dtype
from cai.records import Message, Prompt
from cai.scheduler import rows_in_flight, run_rows
from cai.stages import revise
from cai.stages.transcript import Transcript
from cai.store import Log

# As cai.allocator and cai.backends.vllm set it in their own process; other ways are not to be slow for want of it.
TUNED = {"GOMP_SPINCOUNT": "1000", "MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
MODEL = Path(__file__).resolve().parent.parent / ".build" / "smollm2-135m-instruct"
DRAFT, CRITIQUE, REVISION = 128, 64, 128
CONTEXT, SEATS = 2048, 128
HF32_ROWS, HF1_ROWS = 32, 8


def rows(count: int) -> list[Prompt]:
    """The shipped prompts, as often as needed, none equal to another."""
    shipped = list(prompts.read_prompts(shipped_dir("examples") / "prompts.jsonl"))
    found = []
    for index in range(count):
        prompt, again = shipped[index % len(shipped)], index // len(shipped)
        messages = prompt.messages
        if again:
            messages = (Message("user", f"({again + 1}) {messages[0].content}"), *messages[1:])
        found.append(Prompt.make(messages))
    return found


def plan() -> revise.Plan:
    constitution = load_constitution("default")
    sampling = [Sampling(max_tokens=tokens) for tokens in (DRAFT, CRITIQUE, REVISION)]
    return revise.Plan(
        constitution=constitution,
        transcript=Transcript(constitution, style="chat", few_shot=None, critique=True),
        seed=0,
        rounds=1,
        principles_per_critique=1,
        critique=True,
        unrevised_tags=frozenset(),
        unrevised_samples=1,
        retries=0,
        draft=sampling[0],
        critic=sampling[1],
        revision=sampling[2],
    )


Wave = list[tuple[Request, asyncio.Future[Completion]]]


async def in_waves(todo: Sequence[Prompt], answer: Callable[[Wave], Awaitable[None]]) -> None:
    """The same method, but each step's requests are held back until every row has asked its own."""
    held: Wave = []

    async def generate(request: Request) -> Completion:
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        held.append((request, future))
        return await future

    method = revise.method(plan())
    tasks = [asyncio.ensure_future(method(prompt, generate)) for prompt in todo]
    for _ in range(3):
        while len(held) < len(todo):
            await asyncio.sleep(0)
        wave, held[:] = list(held), []
        await answer(wave)
    await asyncio.gather(*tasks)


# --- in one vLLM engine -----------------------------------------------------------------------------------------------


def in_process(count: int, seats: int, compile_: str, repeats: int) -> dict[str, Any]:
    """`cai`, `raw` and `waves`, alternating."""
    from cai.backends import vllm as backend_module

    config = backend_module.Config(model=str(MODEL), context=CONTEXT, seats=seats, compile=compile_)
    backend = backend_module.build(config, seed=0)
    todo, the_plan = rows(count), plan()
    speeds: dict[str, list[float]] = {"cai": [], "raw": [], "waves": []}
    hits: dict[str, float] = {}

    async def cai(requests: list[Request] | None = None) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder, Log(Path(folder) / "requests.jsonl", key="key") as log:
            engine = Engine(dict.fromkeys(("policy", "critic", "reviser"), backend), log)
            kept: list[Request] = []

            async def generate(request: Request) -> Completion:
                kept.append(request)
                return await engine.generate(request)

            begun = time.perf_counter()
            async for done in run_rows(todo, revise.method(the_plan), generate, in_flight=rows_in_flight(seats)):
                if done.error is not None:
                    raise done.error
            seconds = time.perf_counter() - begun
        if requests is not None:
            requests[:] = kept
        return _speed(engine, seconds)

    async def waves() -> tuple[float, float]:
        engine = Engine(dict.fromkeys(("policy", "critic", "reviser"), backend))

        async def answer(wave: Wave) -> None:
            answers = await asyncio.gather(*(engine.generate(request) for request, _ in wave))
            for (_, future), completion in zip(wave, answers, strict=True):
                future.set_result(completion)

        begun = time.perf_counter()
        await in_waves(todo, answer)
        return _speed(engine, time.perf_counter() - begun)

    def raw(requests: Sequence[Request]) -> tuple[float, float]:
        """vLLM's own entry point, with token ids and the same sampling parameters."""
        from vllm import SamplingParams, TokensPrompt

        inputs = [TokensPrompt(prompt_token_ids=backend.tokens(request.prompt)) for request in requests]
        params = [
            SamplingParams(max_tokens=r.sampling.max_tokens, temperature=1.0, seed=r.seed, detokenize=True)
            for r in requests
        ]
        begun = time.perf_counter()
        outputs = backend._llm.generate(inputs, params, use_tqdm=False)
        seconds = time.perf_counter() - begun
        made = sum(len(o.outputs[0].token_ids) for o in outputs)
        read = sum(len(o.prompt_token_ids) for o in outputs)
        return made / seconds, sum(o.num_cached_tokens or 0 for o in outputs) / read

    asyncio.run(backend_warm(backend, seats))
    for _ in range(repeats):
        requests: list[Request] = []
        for name in ("cai", "raw", "waves"):
            backend._engine.reset_prefix_cache()
            if name == "cai":
                speed, hit = asyncio.run(cai(requests))
            else:
                speed, hit = raw(requests) if name == "raw" else asyncio.run(waves())
            speeds[name].append(speed)
            hits[name] = hit
            print(f"  {name}: {speed:.0f} tok/s, prefix hits {hit:.2f}", file=sys.stderr, flush=True)
    return {"speeds": speeds, "hits": hits}


async def backend_warm(backend: Any, seats: int) -> None:
    """A first batch, so that no one pays for what vLLM sets up on its first steps."""
    prompt = (Message("user", "Say what a benchmark is."),)
    await asyncio.gather(*(backend.generate(Request(prompt, Sampling(max_tokens=16), seed)) for seed in range(seats)))


def _speed(engine: Engine, seconds: float) -> tuple[float, float]:
    usage = engine.usage
    return usage.fresh_completion_tokens / seconds, usage.cached_prompt_tokens / max(1, usage.fresh_prompt_tokens)


# --- over HTTP --------------------------------------------------------------------------------------------------------


def http(count: int, seats: int, compile_: str) -> dict[str, Any]:
    """One task a row against vLLM's own server."""
    port = 8731
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL), "--port", str(port)]
    command += [
        "--host",
        "127.0.0.1",
        "--dtype",
        resolved_dtype("auto"),
        "--max-model-len",
        str(CONTEXT),
        "--max-num-seqs",
        str(seats),
        "--served-model-name",
        "m",
    ]
    command += [] if GPU else ["--no-enable-chunked-prefill", "--max-num-batched-tokens", "4096", "--block-size", "32"]
    command += [] if compile_ == "yes" else ["--enforce-eager"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            return {"speeds": {"http": [asyncio.run(_tasks(count, seats, f"http://127.0.0.1:{port}/v1"))]}}
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("the server ended before it answered")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("the server did not come up")


async def _tasks(count: int, seats: int, url: str) -> float:
    import openai

    client = openai.AsyncOpenAI(base_url=url, api_key="none", timeout=3600, max_retries=0)
    made = 0

    async def generate(request: Request) -> Completion:
        nonlocal made
        turns: Any = [message.row() for message in request.prompt]  # type: ignore[union-attr]
        reply = await client.chat.completions.create(
            model="m", messages=turns, max_tokens=request.sampling.max_tokens, temperature=1.0, seed=request.seed
        )
        assert reply.usage is not None
        made += reply.usage.completion_tokens
        text, reason = reply.choices[0].message.content or "", reply.choices[0].finish_reason
        return Completion(text, reason, reply.usage.prompt_tokens, reply.usage.completion_tokens)

    method, free = revise.method(plan()), asyncio.Semaphore(rows_in_flight(seats))

    async def row(prompt: Prompt) -> None:
        async with free:
            await method(prompt, generate)

    warm = Request((Message("user", "Say what a benchmark is."),), Sampling(max_tokens=16), 0)
    await asyncio.gather(*(generate(warm) for _ in range(seats)))
    made, begun = 0, time.perf_counter()
    await asyncio.gather(*(row(prompt) for prompt in rows(count)))
    return made / (time.perf_counter() - begun)


# --- transformers -----------------------------------------------------------------------------------------------------


def hf(count: int, batch: int) -> dict[str, Any]:
    """`generate` in waves of draft, critique and revision, `batch` rows at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=getattr(torch, resolved_dtype("auto"))).eval()
    model.to("cuda" if GPU else "cpu")
    torch.manual_seed(0)
    made = 0

    def turns(request: Request) -> Sequence[Message]:
        assert not isinstance(request.prompt, str)
        return request.prompt

    def answer(requests: Sequence[Request]) -> list[Completion]:
        nonlocal made
        texts = [
            tokenizer.apply_chat_template([m.row() for m in turns(r)], tokenize=False, add_generation_prompt=True)
            for r in requests
        ]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        limit = max(r.sampling.max_tokens for r in requests)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=limit, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
        new = out[:, inputs["input_ids"].shape[1] :]
        completions = []
        for ids in new:
            kept = ids.tolist()
            end = kept.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in kept else len(kept)
            made += end
            completions.append(Completion(tokenizer.decode(kept[:end], skip_special_tokens=True), "stop", 0, end))
        return completions

    async def answer_in_batches(wave: Wave) -> None:
        wave.sort(key=lambda each: sum(len(message.content) for message in turns(each[0])))
        for start in range(0, count, batch):
            part = wave[start : start + batch]
            for (_, future), completion in zip(part, answer([r for r, _ in part]), strict=True):
                future.set_result(completion)

    answer([Request((Message("user", "Say what a benchmark is."),), Sampling(max_tokens=16), 0)] * batch)
    made, begun = 0, time.perf_counter()
    asyncio.run(in_waves(rows(count), answer_in_batches))
    speed = made / (time.perf_counter() - begun)
    return {"speeds": {f"hf{batch}": [speed]}}


# --- together ---------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--seats", type=int, default=SEATS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", choices=("no", "yes"), default="yes")
    parser.add_argument("--only", default="in_process,http,hf32,hf1")
    parser.add_argument("--part", default="")
    options = parser.parse_args()
    if options.part:
        print("\n" + json.dumps(_part(options.part, options)))
        return
    speeds: dict[str, list[float]] = {}
    hits: dict[str, float] = {}
    for part in options.only.split(","):
        print(f"{part} ...", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.revise_speed", "--part", part, "--rows", str(options.rows)]
        command += ["--repeats", str(options.repeats), "--compile", options.compile]
        command += ["--seats", str(options.seats)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **TUNED})
        found = json.loads(done.stdout.strip().splitlines()[-1])
        speeds |= found["speeds"]
        hits |= found.get("hits", {})
    median = {name: statistics.median(values) for name, values in speeds.items()}
    details = {
        "tokens_per_second": {name: [round(v, 1) for v in values] for name, values in speeds.items()},
        "prefix_cache_hit_rate": {name: round(value, 3) for name, value in hits.items()},
        "rows": {"hf32": min(options.rows, HF32_ROWS), "hf1": HF1_ROWS, "others": options.rows},
        "seats": options.seats,
        "compile": options.compile,
        "model": f"SmolLM2-135M-Instruct, {resolved_dtype('auto')}",
        "max_tokens": {"draft": DRAFT, "critique": CRITIQUE, "revision": REVISION},
    }
    for other, threshold in (("raw", 0.9), ("waves", 1.0), ("http", 1.5), ("hf32", 2.5), ("hf1", 30.0)):
        if other in median and "cai" in median:
            ratio = median["cai"] / median[other]
            report(
                claim=f"revise_vs_{other}",
                value=round(ratio, 3),
                threshold=threshold,
                holds=ratio >= threshold,
                unit="ratio of generated tokens per second",
                details=details,
            )


def _part(name: str, options: argparse.Namespace) -> dict[str, Any]:
    if name == "in_process":
        return in_process(options.rows, options.seats, options.compile, options.repeats)
    if name == "http":
        return http(options.rows, options.seats, options.compile)
    return hf(min(options.rows, HF32_ROWS), 32) if name == "hf32" else hf(HF1_ROWS, 1)


if __name__ == "__main__":
    main()
