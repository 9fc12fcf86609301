"""Time of SFT, reward model and DPO by `cai` beside plain TRL: same model, rows, batch, steps and optimiser.

    python -m benchmarks.train_vs_trl [--steps 4] [--repeats 3] [--only sft,rm,dpo]

Rows are the shipped prompts with made-up answers, one pair a group, so that both read the same tokens. TRL and ours
alternate, each in a process of its own; what is timed is `trainer.train()`, data preparation and loading left out.
Plain TRL has DPO's reference log-probabilities computed before as well. The figure is the ratio of medians, ours over
TRL's.
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
from cai.records import Candidate, Group, Message
from cai.training.data import Element, Pair, encode, tokens

BATCH, PROMPTS = 16 if GPU else 4, Path(__file__).resolve().parent.parent / "examples" / "prompts.jsonl"
WORDS = "a plain answer about what was asked , given in a few words that anyone can follow without any trouble".split()


def elements(count: int) -> list[Element]:
    """Pairs of made-up answers of 30 to 90 words."""
    rng = np.random.default_rng(0)
    found = []
    for prompt in list(prompts.read_prompts(PROMPTS))[:count]:
        texts = [" ".join(rng.choice(WORDS, rng.integers(30, 90))) for _ in range(2)]
        group = Group.make(prompt, [Candidate(str(k), text) for k, text in enumerate(texts)])
        pair = Pair(0, 1, 1.0, 1.0, "", "ai", group.id)
        found.append(Element(group.id, prompt.id, prompt.messages, tuple(texts), (pair,)))
    return found


def timed(kind: str, who: str, steps: int, folder: str) -> dict[str, float]:
    """Seconds of `trainer.train()`, how many tokens it read, and how many with the padding an epoch has."""
    import warnings

    warnings.simplefilter("ignore")
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    from cai.training.batches import PairCollator
    from cai.training.models import load_model, load_tokenizer
    from cai.training.trainers import SoftDPOTrainer, SoftRewardTrainer

    tokenizer = load_tokenizer(MODEL)
    model = load_model(
        MODEL, "reward" if kind == "rm" else "causal", dtype="float32", pad=tokenizer.pad_token_id, seed=0
    )
    found = elements(BATCH * min(steps, 20))
    plain = [
        {
            "prompt": [m.row() for m in e.messages],
            "chosen": [{"role": "assistant", "content": e.answers[0]}],
            "rejected": [{"role": "assistant", "content": e.answers[1]}],
        }
        for e in found
    ]
    common: dict[str, Any] = {
        "output_dir": folder,
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "report_to": "none",
        "use_cpu": not GPU,
        "bf16": GPU,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_steps": 1000,
        "disable_tqdm": True,
        "seed": 0,
        "max_length": 512,
        # In one order, so that what is compared is the same work; `main` checks it by the tokens with padding.
        "train_sampling_strategy": "sequential",
    }
    trainer: Any
    if kind == "sft":
        rows = [[*e.messages, Message("assistant", e.answers[0])] for e in found]
        if who == "trl":
            data = Dataset.from_list([{"messages": [m.row() for m in row]} for row in rows])
            arguments = SFTConfig(**common)
        else:
            ids = [tokens(tokenizer, row) for row in rows]
            data = Dataset.from_list([{"input_ids": each, "labels": each} for each in ids])
            arguments = SFTConfig(**common, dataset_kwargs={"skip_prepare_dataset": True})
        trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    elif who == "trl":
        data = Dataset.from_list(plain)
        if kind == "rm":
            trainer = RewardTrainer(model, RewardConfig(**common), train_dataset=data, processing_class=tokenizer)
        else:
            arguments = DPOConfig(**common, precompute_ref_log_probs=True)
            trainer = DPOTrainer(model, args=arguments, train_dataset=data, processing_class=tokenizer)
    else:
        encoded, _ = encode(found, tokenizer, longest=512)
        data = Dataset.from_list([e.row() for e in encoded])
        more: dict[str, Any] = {"data_collator": PairCollator(tokenizer.pad_token_id), "train_dataset": data}
        if kind == "rm":
            trainer = SoftRewardTrainer(model, RewardConfig(**common), processing_class=tokenizer, **more)
        else:
            arguments = DPOConfig(**common, precompute_ref_log_probs=True)
            trainer = SoftDPOTrainer(model, args=arguments, processing_class=tokenizer, **more)
    begun = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - begun
    answers = 1 if kind == "sft" else 2
    read = sum(
        len(tokens(tokenizer, [*e.messages, Message("assistant", text)])) for e in found for text in e.answers[:answers]
    )
    computed = sum(batch["input_ids"].numel() for batch in trainer.get_train_dataloader())
    return {"seconds": seconds, "tokens": read / len(found) * BATCH * steps, "computed": computed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="sft,rm,dpo")
    parser.add_argument("--part", default="", help="(of one measurement)")
    options = parser.parse_args()
    if options.part:
        kind, who = options.part.split(",")
        with tempfile.TemporaryDirectory() as folder:
            print("\n" + json.dumps(timed(kind, who, options.steps, folder)))
        return
    seconds: dict[str, dict[str, list[float]]] = {}
    read: dict[str, float] = {}
    computed: dict[str, set[int]] = {}
    for kind in options.only.split(","):
        found = seconds.setdefault(kind, {"cai": [], "trl": []})
        for repeat in range(options.repeats):
            for who in ("cai", "trl") if repeat % 2 else ("trl", "cai"):
                command = [sys.executable, "-m", "benchmarks.train_vs_trl", "--part", f"{kind},{who}"]
                command += ["--steps", str(options.steps)]
                done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
                told = json.loads(done.stdout.strip().splitlines()[-1])
                found[who].append(round(told["seconds"], 2))
                read[kind] = told["tokens"]
                computed.setdefault(kind, set()).add(told["computed"])
                print(kind, who, found[who][-1], flush=True)
    if any(len(counts) > 1 for counts in computed.values()):
        raise SystemExit(f"the two do not compute the same: tokens with padding {computed}")
    ratios = {kind: float(np.median(found["cai"]) / np.median(found["trl"])) for kind, found in seconds.items()}
    report(
        claim="train_vs_trl",
        value=round(max(ratios.values()), 3),
        threshold=1.05,
        holds=max(ratios.values()) <= 1.05,
        unit="largest ratio of our time to plain TRL's, medians (at most)",
        details={
            "ratios": {kind: round(value, 3) for kind, value in ratios.items()},
            "seconds": seconds,
            "tokens_per_second": {kind: round(read[kind] / np.median(found["cai"])) for kind, found in seconds.items()},
            "steps": options.steps,
            "batch": BATCH,
            "model": "SmolLM2-135M-Instruct, " + ("bfloat16 over float32 weights" if GPU else "float32"),
        },
    )


if __name__ == "__main__":
    main()
