"""Peak memory of PPO with LoRA over one shared base, against four full models: policy, reference, value and reward.

    python -m benchmarks.ppo_memory [--batch 16] [--tokens 64] [--micro-batch 4] [--model FOLDER]

One update of each way, in a process of its own: answers by transformers, a reward model of the policy's size in both.
Counted is what the process takes above what it took after its imports: resident memory on the CPU, torch's own peak
on a GPU. In `shared` policy, reference and value function are one model with two adapters, and the reward model is a
second; in `four` each is a copy, and Adam keeps two numbers for every weight of policy and value model.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import report
from benchmarks.ppo_vs_trl import MODEL, ROOT, prompts

WAYS: dict[str, dict[str, Any]] = {
    "shared": {"lora": {"rank": 16, "alpha": 32}, "value": "separate"},
    "shared_value_head": {"lora": {"rank": 16, "alpha": 32}, "value": "shared"},
    "four": {"lora": None, "value": "separate"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--way", default="", choices=("", *WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(one(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        reward_model(options.model, Path(folder) / "rm")
        found = {way: measured(way, Path(folder), sys.argv[1:]) for way in WAYS}
    ratio = found["shared"]["peak_mib"] / found["four"]["peak_mib"]
    report(
        claim="ppo_memory",
        value=round(ratio, 3),
        threshold=0.5,
        holds=ratio <= 0.5,
        unit="peak memory with a shared LoRA base by that of four models; at most",
        details={
            "ways": found,
            "settings": {key: getattr(options, key) for key in ("batch", "micro_batch", "tokens", "dtype")},
            "model": options.model.name,
        },
    )


def reward_model(parent: Path, folder: Path) -> None:
    """A reward model of the policy's size; what it says is of no matter here."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(parent, num_labels=1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(parent).save_pretrained(folder)


def measured(way: str, folder: Path, arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ppo_memory", *arguments, "--way", way, "--folder", str(folder)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {way}: {found['peak_mib']} MiB", file=sys.stderr, flush=True)
    return found


def one(options: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process."""
    import peft  # noqa: F401 (so that the imports are not counted)
    import torch
    import transformers  # noqa: F401

    from cai.training.algorithms import ppo
    from cai.training.base import Job
    from cai.training.rewards.model import Config, RewardModel

    gpu = torch.cuda.is_available()
    before = 0.0 if gpu else resident_mib()
    config = ppo.Config.model_validate(
        {"updates": 1, "batch": options.batch, "minibatches": 2, "micro_batch": options.micro_batch, "epochs": 1}
        | {"max_new_tokens": options.tokens, "dtype": options.dtype, "rollout_options": {"batch": options.batch}}
        | {"save_every": 10**6, **WAYS[options.way]}
    )
    job = Job(
        "ppo",
        options.folder / options.way,
        options.model,
        seed=1,
        prompts=tuple(prompt for _, prompt in prompts(options.model)),
        reward=RewardModel(options.folder / "rm", Config(batch=options.micro_batch, dtype=options.dtype)),
        say=lambda text: None,
    )
    ppo.train(job, config)
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_mib() - before
    return {"peak_mib": round(peak), "imports_mib": round(before)}


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
