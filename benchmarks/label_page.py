"""How long the labelling page makes people wait: 50 annotators at once against a real server process.

    python -m benchmarks.label_page [--people 50] [--seconds 30]

A run of the scripted backend; each person asks for an item, thinks for one to three seconds, and sends a verdict, on
one connection of their own. What is timed is a verdict's reply, which carries the next item and comes after the commit
to disk. Traffic goes to 127.0.0.1 only and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.common import report

PROMPTS = Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"
RECIPE = """
name: page
prompts: [{{path: {prompts}}}]
models: {{policy: {{backend: scripted}}}}
revise: {{rounds: 1}}
sample: {{sources: [{{count: 4}}]}}
judge: {{}}
"""


async def person(link: str, until: float, seed: int) -> list[float]:
    """Seconds that each verdict took."""
    origin, token = link.split("/#token=")
    rng = random.Random(seed)
    took = []
    async with httpx.AsyncClient(base_url=origin, headers={"x-cai": "1", "origin": origin}, timeout=60) as client:
        (await client.post("/api/login", json={"token": token})).raise_for_status()
        task = (await client.get("/api/next")).json()["task"]
        while task is not None and time.monotonic() < until:
            await asyncio.sleep(rng.uniform(1, 3))
            said = {"axes": {"": {"verdict": rng.choice(["left", "right", "tie"]), "strength": None}}, "note": ""}
            body = {"id": str(uuid.uuid4()), "task": task["id"], "ticket": task["ticket"], "seconds": 2, "said": said}
            begun = time.perf_counter()
            reply = await client.post("/api/verdict", json=body)
            took.append(time.perf_counter() - begun)
            task = reply.raise_for_status().json()["task"]
    return took


async def together(links: list[str], seconds: float) -> list[float]:
    until = time.monotonic() + seconds
    found = await asyncio.gather(*(person(link, until, seed) for seed, link in enumerate(links)))
    return [value for mine in found for value in mine]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    cai = [sys.executable, "-m", "cai"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "recipe.yaml").write_text(RECIPE.format(prompts=PROMPTS), "utf-8")
        run = folder / "run"
        done = subprocess.run([*cai, "run", str(folder / "recipe.yaml"), "--run-dir", str(run)], capture_output=True)
        if done.returncode:
            raise SystemExit(done.stderr.decode())
        pairs = sum(1 for _ in (run / "preferences.jsonl").open("rb"))
        names = ",".join(f"p{n}" for n in range(options.people))
        serve = [*cai, "label", "serve", str(run), "--annotators", names, "--port", "0", "--overlap", "10"]
        process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            links: list[str] = []
            for line in process.stderr:
                if ": http" in line:
                    links.append(line.split(" ", 1)[1].strip())
                if len(links) == options.people:
                    break
            took = asyncio.run(together(links, options.seconds))
        finally:
            process.terminate()
            process.wait(60)
        kept = sum(json.loads(line)["status"] == "submitted" for line in (run / "labels.jsonl").open(encoding="utf-8"))
    milliseconds = 1000 * np.array(took)
    p95 = float(np.quantile(milliseconds, 0.95))
    details: dict[str, Any] = {
        "people": options.people,
        "verdicts": len(took),
        "events_in_the_log": kept,
        "pairs": pairs,
        "median_ms": round(float(np.median(milliseconds)), 1),
        "p99_ms": round(float(np.quantile(milliseconds, 0.99)), 1),
        "longest_ms": round(float(milliseconds.max()), 1),
    }
    if kept != len(took):
        raise SystemExit(f"{len(took)} verdicts were answered, {kept} are in the log")
    report(
        claim="label_page_p95",
        value=round(p95, 1),
        threshold=100,
        holds=p95 <= 100,
        unit="milliseconds a verdict, 95th percentile (at most)",
        details=details,
    )


if __name__ == "__main__":
    main()
