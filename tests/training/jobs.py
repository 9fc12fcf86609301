"""Jobs for SFT, reward model and DPO on a tiny model, for the tests that run them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from cai.training import algorithms
from cai.training.base import Job, Outcome
from cai.training.data import PairSource
from tests.training import tiny_rl
from tests.training.test_pairs import preferences, write

FAST: dict[str, Any] = {"batch": 2, "micro_batch": 2, "learning_rate": 0.01, "max_length": 128, "save_every": 2}


def job(folder: Path, name: str, **changes: Any) -> Job:
    """A job on a tiny model, which is made where it is not there yet."""
    model = folder / "model"
    if not model.is_dir():
        tiny_rl.write_model(model)
        write(folder / "trl", preferences(12, p=0.9), test=9)
        sft = folder / "sft"
        sft.mkdir()
        for split, count in (("train", 8), ("test", 2)):
            rows = [
                {
                    "messages": [
                        {"role": "user", "content": f"say {tiny_rl.WORDS[n]}"},
                        {"role": "assistant", "content": tiny_rl.WORDS[n]},
                    ]
                }
                for n in range(count)
            ]
            (sft / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = Job(
        name=name,
        out=folder / name,
        parent=model,
        seed=0,
        conversations=folder / "sft",
        pairs=(PairSource("ai", folder / "trl"),),
        lineage={"run": "tiny"},
        say=lambda _: None,
    )
    given = dataclasses.replace(given, **changes)
    given.steps.mkdir(parents=True, exist_ok=True)
    return given


def train(given: Job, **settings: Any) -> Outcome:
    module = algorithms.load(given.name)
    return module.train(given, module.Config(**(FAST | settings)))


def rows(given: Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in given.metrics.read_text("utf-8").splitlines()]


def losses(given: Job) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(given) if "loss" in row}
