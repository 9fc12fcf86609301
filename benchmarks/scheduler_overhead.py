"""Claims: beside no model, the engine brings 3,000 rows of three dependent requests to their end per second of one core
(`engine_overhead`), and the whole critique-and-revise method 300 (`revise_overhead`).

The backend answers at once, so all that is left is ours. vLLM's engine is stepped from the same thread, so that is time
in which no token is generated there. What it means: 9,000 requests a second are 111 microseconds a request, 900 are 1.1
milliseconds. SmolLM2-135M on 2 CPU cores (1,000 tokens a second) ends about 8 requests of 128 tokens a second; a server
of 10,000 tokens a second 78. `details.share_of_the_thread` says what part of each second that leaves to our own work.

All of it is work of one thread, so seconds are the processor's (`time.process_time`): on shared cores the wall clock
counts what others do as well. The rates by the wall clock stand beside them in the details.

Three ways, alternating, `--repeats` times; the figures are medians:

- `engine`: `run_rows`, `Engine` (the hash of each request, the look-up, the row appended to the log) and `Log`, the
  rows' method doing nothing but to ask: conversations that grow to 1,900 characters, answers of 800;
- `reused`: the same requests once more, all of them in the log;
- `revise`: the critique-and-revise method of one round, with draws, wording, fault checks and records.

    python -m benchmarks.scheduler_overhead [--rows 4000] [--repeats 7] [--folder DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import report
from cai.constitution import load_constitution
from cai.engine import Completion, Engine, Generate, Request, Sampling
from cai.records import Message, Messages, Prompt
from cai.scheduler import rows_in_flight, run_rows
from cai.stages import revise
from cai.stages.transcript import Transcript
from cai.store import Log

ENGINE_ROWS, REVISE_ROWS = 3000, 300
"""Rows a second of processor time; the slowest repeats on a busy machine had 4,500 and 430."""
STEPS = 3
SEATS = 256
ROLES = ("policy", "critic", "reviser")
SAMPLING = Sampling(max_tokens=160)


class Instant:
    """A backend that answers at once, each seed with a text of its own."""

    fingerprint = "instant@0"
    context = 1 << 20
    seats = SEATS

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    async def generate(self, request: Request) -> Completion:
        text = self._texts[request.seed % len(self._texts)]
        return Completion(text, "stop", 600, 160, 500, self.fingerprint)

    async def close(self) -> None:
        return None


def made_up() -> tuple[list[str], list[str]]:
    """Questions of about 150 characters, and answers of about 800 in sentences that no fault check objects to."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(3000)]

    def text(sentences: int) -> str:
        return " ".join(" ".join(chance.choices(words, k=12)).capitalize() + "." for _ in range(sentences))

    return [text(2) for _ in range(1000)], [text(10) for _ in range(997)]


async def ask(prompt: Prompt, generate: Generate) -> str:
    """Three requests, each with all that was said before; the conversation of a draft, a critique and a revision."""
    turns: Messages = prompt.messages
    text = ""
    for step in range(STEPS):
        seed = int(prompt.id[:7], 16) + step
        text = (await generate(Request(turns, SAMPLING, seed, ROLES[step]))).text
        turns = (*turns, Message("assistant", text), Message("user", "What is wrong with it, and how is it mended?"))
    return text


def the_loop() -> Callable[[Prompt, Generate], Awaitable[revise.Chain]]:
    """Critique and revise of one round, under the shipped constitution."""
    constitution = load_constitution("default")
    plan = revise.Plan(
        constitution=constitution,
        transcript=Transcript(constitution, style="chat", few_shot=None, critique=True),
        seed=0,
        rounds=1,
        principles_per_critique=1,
        critique=True,
        unrevised_tags=frozenset(),
        unrevised_samples=1,
        retries=0,
        draft=SAMPLING,
        critic=SAMPLING,
        revision=SAMPLING,
    )
    return revise.method(plan)


async def measure(
    rows: Sequence[Prompt], method: Callable[[Prompt, Generate], Awaitable[Any]], answers: Sequence[str], log: Log
) -> tuple[float, float, Engine]:
    """Rows a second of processor time, and by the wall clock."""
    backend = Instant(answers)
    engine = Engine(dict.fromkeys(ROLES, backend), log)
    begun, used = time.perf_counter(), time.process_time()
    async for done in run_rows(rows, method, engine.generate, in_flight=rows_in_flight(SEATS)):
        if done.error is not None:
            raise done.error
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    return len(rows) / used, len(rows) / seconds, engine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the logs are made for the time being (default: /tmp)")
    args = parser.parse_args()
    questions, answers = made_up()
    rows = [Prompt.make(f"{number}: {questions[number % len(questions)]}") for number in range(args.rows)]
    loop = the_loop()
    speeds: dict[str, list[float]] = {"engine": [], "reused": [], "revise": []}
    wall: dict[str, list[float]] = {name: [] for name in speeds}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            with Log(Path(folder, "requests.jsonl"), key="key") as log:
                for name, fresh in (("engine", STEPS * len(rows)), ("reused", 0)):
                    speed, by_clock, engine = asyncio.run(measure(rows, ask, answers, log))
                    if engine.usage.fresh_requests != fresh:
                        raise SystemExit(f"{name}: {engine.usage.fresh_requests} requests instead of {fresh}")
                    speeds[name].append(speed)
                    wall[name].append(by_clock)
            with Log(Path(folder, "revise.jsonl"), key="key") as log:
                speed, by_clock, engine = asyncio.run(measure(rows, loop, answers, log))
                if engine.usage.fresh_requests != STEPS * len(rows):
                    raise SystemExit(f"revise: {engine.usage.fresh_requests} requests instead of {STEPS * len(rows)}")
                speeds["revise"].append(speed)
                wall["revise"].append(by_clock)
        told = {name: round(values[-1]) for name, values in speeds.items()}
        print(f"  rows/s: {told}", file=sys.stderr, flush=True)
    median = {name: statistics.median(values) for name, values in speeds.items()}
    microseconds = {name: 1e6 / (STEPS * value) for name, value in median.items()}
    details = {
        "rows": args.rows,
        "rows_a_second": {name: [round(value) for value in values] for name, values in speeds.items()},
        "rows_a_second_by_the_wall_clock": {name: [round(value) for value in values] for name, values in wall.items()},
        "microseconds_a_request": {name: round(value, 1) for name, value in microseconds.items()},
        "share_of_the_thread": {
            f"{tokens} generated tokens/s, 128 a request": {
                name: round(tokens / 128 * microseconds[name] / 1e6, 4) for name in ("engine", "revise")
            }
            for tokens in (1_000, 10_000, 50_000)
        },
    }
    for claim, name, threshold in (
        ("engine_overhead", "engine", ENGINE_ROWS),
        ("revise_overhead", "revise", REVISE_ROWS),
    ):
        report(
            claim=claim,
            value=round(median[name]),
            threshold=threshold,
            holds=median[name] >= threshold,
            unit="rows of three requests a second of one core, with a backend that answers at once (at least)",
            details=details,
        )


if __name__ == "__main__":
    main()
