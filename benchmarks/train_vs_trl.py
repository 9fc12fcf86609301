"""Time of SFT, reward model and DPO by `cai` beside plain TRL: same model, rows, batch and optimiser, step by step.

    python -m benchmarks.train_vs_trl [--steps 12] [--only sft,rm,dpo]

Each side trains in a process of its own: ours by the algorithm that `cai train` calls, with its callbacks, logs and
checks; TRL's by its own trainer as it comes. Rows are the shipped prompts with made-up answers, one pair a group, read
from one file by both, in its order, so that both compute the same tokens, padding included (checked at every step).

A virtual machine that is slow for a minute would be taken for a slow trainer if one ran behind the other. So both stand
loaded side by side and take turns: one step of one, one step of the other, the order turned round each time, while the
other waits. What is timed is from the begin of a step to the begin of the next, the first left out: data preparation,
loading and what comes behind the last step are in neither. Plain TRL has DPO's reference log-probabilities computed
before as well. The figure is the ratio of summed seconds, with an interval over the pairs of steps.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import GPU, report
from benchmarks.revise_speed import MODEL
from cai import prompts
from cai.training.base import Job
from cai.training.data import PairSource, read_conversations, read_pairs

BATCH, PROMPTS = 16 if GPU else 4, Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"
WORDS = "a plain answer about what was asked , given in a few words that anyone can follow without any trouble".split()
MARK = "at a step: "
LONGEST = 512


def write(folder: Path, steps: int) -> None:
    """Conversations, and pairs of made-up answers of 30 to 90 words; a step more than is timed, and one to end with."""
    rng = np.random.default_rng(0)
    asked = list(prompts.read_prompts(PROMPTS))
    pairs, conversations = [], []
    for number in range(BATCH * (steps + 2)):
        # Behind the last prompt the first ones again, each with a word of its own: pairs of a prompt are one element.
        messages = [turn.row() for turn in asked[number % len(asked)].messages]
        messages[-1] = {**messages[-1], "content": f"{messages[-1]['content']} ({number})"}
        one, other = (
            [{"role": "assistant", "content": " ".join(rng.choice(WORDS, rng.integers(30, 90)))}] for _ in range(2)
        )
        pairs.append({"prompt": messages, "chosen": one, "rejected": other})
        conversations.append({"messages": messages + one})
    (folder / "sft").mkdir()
    for path, rows in ((folder / "pairs.jsonl", pairs), (folder / "sft" / "train.jsonl", conversations)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def given(kind: str, folder: Path) -> Job:
    job = Job(
        kind,
        folder / "cai",
        MODEL,
        seed=0,
        conversations=folder / "sft",
        pairs=(PairSource("made up", folder / "pairs.jsonl", test_fraction=0.0),),
        trl={"train_sampling_strategy": "sequential"},
        say=lambda _: None,
    )
    job.steps.mkdir(parents=True, exist_ok=True)
    return job


def train(kind: str, who: str, steps: int, folder: Path) -> None:
    """Train; at the begin of every step, say so and wait to be told to go on."""
    import warnings

    import torch
    from transformers import Trainer

    warnings.simplefilter("ignore")
    step = Trainer.training_step

    def waiting(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        if GPU:  # what is queued is this side's work
            torch.cuda.synchronize()
        print(f"{MARK}{inputs['input_ids'].numel()}", flush=True)
        if not sys.stdin.readline():
            raise SystemExit
        return step(self, model, inputs, *rest, **more)

    Trainer.training_step = waiting
    if who == "cai":
        ours(given(kind, folder), steps)
    else:
        trls(given(kind, folder), steps)


def ours(job: Job, steps: int) -> None:
    from cai.training import algorithms

    module = algorithms.load(job.name)
    settings = {"max_steps": steps, "batch": BATCH, "micro_batch": BATCH, "max_length": LONGEST, "save_every": 10**6}
    module.train(job, module.Config(**settings, dtype="bfloat16" if GPU else "float32"))


def trls(job: Job, steps: int) -> None:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    from cai.training.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(MODEL)
    head: Any = "reward" if job.name == "rm" else "causal"
    model = load_model(MODEL, head, dtype="float32", pad=tokenizer.pad_token_id, seed=0)
    common: dict[str, Any] = {
        "output_dir": str(job.out.parent / "trl"),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "report_to": "none",
        "use_cpu": not GPU,
        "bf16": GPU,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 0,
        "max_length": LONGEST,
        "train_sampling_strategy": "sequential",
    }
    if job.name == "sft":
        assert job.conversations is not None
        rows = [{"messages": [turn.row() for turn in each]} for each in read_conversations(job.conversations)["train"]]
        kind, trainer = SFTConfig, SFTTrainer
    else:
        rows = [
            {
                "prompt": [turn.row() for turn in each.messages],
                "chosen": [{"role": "assistant", "content": each.answers[each.pairs[0].first]}],
                "rejected": [{"role": "assistant", "content": each.answers[each.pairs[0].second]}],
            }
            for each in read_pairs(job.pairs).train
        ]
        kind, trainer = (RewardConfig, RewardTrainer) if job.name == "rm" else (DPOConfig, DPOTrainer)
        common |= {"precompute_ref_log_probs": True} if job.name == "dpo" else {}
    arguments, data = kind(**common), Dataset.from_list(rows)
    trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer).train()


class Side:
    """A training in a process of its own, which stands still at the begin of every step."""

    def __init__(self, kind: str, who: str, steps: int, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.train_vs_trl", "--part", f"{kind},{who},{folder}"]
        self._process = subprocess.Popen(
            [*command, "--steps", str(steps)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.computes = self._arrived()

    def _arrived(self) -> int:
        """Tokens, padding included, of the step at which it stands."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                return int(line.removeprefix(MARK))
        raise SystemExit(f"{' '.join(self._process.args)} ended with {self._process.wait()}")  # type: ignore[arg-type]

    def step(self) -> float:
        """Seconds of a step."""
        assert self._process.stdin is not None
        begun = time.perf_counter()
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.computes = self._arrived()
        return time.perf_counter() - begun

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def measured(kind: str, steps: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each side's steps, and tokens that both computed in them."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), steps)
        sides = {who: Side(kind, who, steps + 2, Path(name)) for who in ("cai", "trl")}
        seconds: dict[str, list[float]] = {who: [] for who in sides}
        computed = 0
        try:
            for number in range(steps + 1):
                tokens = {side.computes for side in sides.values()}
                if len(tokens) > 1:
                    raise SystemExit(f"{kind}: the two do not compute the same: tokens with padding {tokens}")
                for who in list(sides)[:: 1 if number % 2 else -1]:
                    took = sides[who].step()
                    if number:  # the first has much to set up
                        seconds[who].append(round(took, 3))
                computed += max(tokens) if number else 0
                print(kind, number, {who: found[-1:] for who, found in seconds.items()}, flush=True)
        finally:
            for side in sides.values():
                side.close()
    return seconds, computed


def interval(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """95 %, of the ratio of sums, by bootstrap over pairs of steps."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(ours), (10_000, len(ours)))
    low, high = np.quantile(np.array(ours)[drawn].sum(1) / np.array(theirs)[drawn].sum(1), [0.025, 0.975])
    return round(float(low), 3), round(float(high), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each side")
    parser.add_argument("--only", default="sft,rm,dpo")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        kind, who, folder = options.part.split(",", 2)
        train(kind, who, options.steps, Path(folder))
        return
    found = {kind: measured(kind, options.steps) for kind in options.only.split(",")}
    ratios = {kind: sum(seconds["cai"]) / sum(seconds["trl"]) for kind, (seconds, _) in found.items()}
    report(
        claim="train_vs_trl",
        value=round(max(ratios.values()), 3),
        threshold=1.05,
        holds=max(ratios.values()) <= 1.05,
        unit="largest ratio of our time to plain TRL's (at most)",
        details={
            "ratios": {kind: round(value, 3) for kind, value in ratios.items()},
            "intervals": {kind: interval(seconds["cai"], seconds["trl"]) for kind, (seconds, _) in found.items()},
            "seconds": {kind: seconds for kind, (seconds, _) in found.items()},
            "tokens_per_second": {kind: round(count / sum(told["cai"])) for kind, (told, count) in found.items()},
            "batch": BATCH,
            "model": "SmolLM2-135M-Instruct, " + ("bfloat16 over float32 weights" if GPU else "float32"),
        },
    )


if __name__ == "__main__":
    main()
