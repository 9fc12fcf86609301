"""10,000 comparisons, killed again and again: the votes are those of an undisturbed run, and none is asked twice.

    python -m benchmarks.judge_resume [--comparisons 10000] [--kills 10]

The scripted backend answers; each comparison is asked in both orders. `cai run` is killed by SIGKILL while it judges,
when the journal of that has grown to random sizes, and started again. Compared are the bytes of votes.jsonl and
preferences.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import report

CAI = [sys.executable, "-c", "from cai.cli.main import app; app()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = -(-options.comparisons // 10)  # five answers a prompt: ten pairs
        with (folder / "prompts.jsonl").open("w") as file:
            for number in range(prompts):
                file.write(json.dumps({"prompt": f"Question {number}: what is to be done?"}) + "\n")
        (folder / "recipe.yaml").write_text(
            "name: r\nprompts: [{path: prompts.jsonl}]\nmodels: {policy: {backend: scripted}}\n"
            "revise: {rounds: 0, unrevised_tags: []}\nsample: {sources: [{count: 5}]}\njudge: {}\n"
        )
        begun = time.monotonic()
        run(folder, "whole").wait()
        whole = time.monotonic() - begun
        rng, judged = random.Random(0), folder / "killed" / "judged.jsonl"
        size = (folder / "whole" / "judged.jsonl").stat().st_size
        kills = []
        for part in sorted(rng.uniform(0.01, 0.95) for _ in range(options.kills)):
            process = run(folder, "killed")
            while process.poll() is None and (not judged.is_file() or judged.stat().st_size < part * size):
                time.sleep(0.01)
            if process.poll() is not None:
                raise SystemExit(f"the run had ended before it could be killed at {part:.0%} of its journal")
            process.kill()
            process.wait()
            kills.append(round(judged.stat().st_size / size, 3))
        if run(folder, "killed").wait():
            raise SystemExit("the run could not be finished")
        same = {
            name: (folder / "whole" / name).read_bytes() == (folder / "killed" / name).read_bytes()
            for name in ("votes.jsonl", "preferences.jsonl", "samples.jsonl")
        }
        keys = [json.loads(line)["key"] for line in (folder / "killed" / "requests.jsonl").open()]
        votes = sum(1 for _ in (folder / "whole" / "votes.jsonl").open())
    report(
        claim="judge_resume",
        value=float(all(same.values()) and len(keys) == len(set(keys)) and max(kills) < 1),
        threshold=1.0,
        holds=all(same.values()) and len(keys) == len(set(keys)) and max(kills) < 1,
        unit="1 if the bytes are equal and nothing was asked twice",
        details={
            "comparisons": votes // 2,
            "votes": votes,
            "killed_at_share_of_the_journal": kills,
            "equal_bytes": same,
            "requests": len(keys),
            "asked_twice": len(keys) - len(set(keys)),
            "undisturbed_seconds": round(whole, 1),
        },
    )


def run(folder: Path, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*CAI, "run", str(folder / "recipe.yaml"), "--run-dir", str(folder / name)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
