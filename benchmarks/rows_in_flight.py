"""Tokens per second of `cai revise` with the rows in flight that it chooses, beside twice as many rows as seats.

    python -m benchmarks.rows_in_flight [--rows 96] [--seats 16] [--repeats 2]

A revision finds its critique's prompt in the prefix cache if not too much was asked in between. Where many more rows
are in flight than there are seats, a row's next request queues behind the first ones of all the others, whose prompts
push its own out of the cache. Both ways run in one engine, in turns, the cache emptied before each; the rows, prompts
and the method are those of `revise_speed`. To show in minutes what a long run on many seats does, there are few seats
and six rows to each, and the cache is cut to the size that 128 seats have in the default 2 GiB, a seat for a seat,
beside what the worked examples take, which all rows share.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from benchmarks.common import report
from benchmarks.revise_speed import CONTEXT, MODEL, backend_warm, plan, rows
from cai.backends import vllm
from cai.engine import Engine
from cai.scheduler import rows_in_flight, run_rows
from cai.stages import revise

BLOCK, SHARED, PER_SEAT = 32, 60, 182 / 16
"""Tokens a block; blocks for worked examples; blocks a seat: 2 GiB of float32 for 128 seats of SmolLM2-135M."""


async def timed(backend: vllm.Backend, count: int, in_flight: int) -> tuple[float, float]:
    """Generated tokens per second, and the share of prompt tokens from the cache."""
    engine = Engine(dict.fromkeys(("policy", "critic", "reviser"), backend))
    begun = time.perf_counter()
    async for done in run_rows(rows(count), revise.method(plan()), engine.generate, in_flight=in_flight):
        if done.error is not None:
            raise done.error
    seconds = time.perf_counter() - begun
    usage = engine.usage
    return usage.fresh_completion_tokens / seconds, usage.cached_prompt_tokens / usage.fresh_prompt_tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--seats", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    blocks = SHARED + round(PER_SEAT * options.seats)
    config = vllm.Config(
        model=str(MODEL),
        context=CONTEXT,
        seats=options.seats,
        compile="no",
        engine={"num_gpu_blocks_override": blocks, "block_size": BLOCK},
    )
    backend = vllm.build(config, seed=0)
    asyncio.run(backend_warm(backend, options.seats))
    ways = {"ours": rows_in_flight(options.seats), "twice": 2 * options.seats}
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    hits: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, in_flight in ways.items():
            backend._engine.reset_prefix_cache()
            speed, hit = asyncio.run(timed(backend, options.rows, in_flight))
            speeds[name].append(speed)
            hits[name].append(hit)
            print(f"  {name}: {speed:.0f} tok/s, prefix hits {hit:.3f}", file=sys.stderr, flush=True)
    ratio = statistics.median(speeds["ours"]) / statistics.median(speeds["twice"])
    report(
        claim="rows_in_flight",
        value=round(ratio, 3),
        threshold=1.0,
        holds=ratio >= 1.0,
        unit="ratio of generated tokens per second, an eighth more rows than seats beside twice as many; at least",
        details={
            "tokens_per_second": {name: [round(v, 1) for v in found] for name, found in speeds.items()},
            "prefix_cache_hit_rate": {name: [round(v, 3) for v in found] for name, found in hits.items()},
            "rows_in_flight": ways,
            "rows": options.rows,
            "seats": options.seats,
            "blocks": blocks,
        },
    )


if __name__ == "__main__":
    main()
