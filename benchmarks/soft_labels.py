"""Soft labels against hard ones on the same data: a reward model's held-out accuracy and calibration.

    python -m benchmarks.soft_labels [--pairs 200] [--epochs 1] [--seeds 1] [--data FOLDER]

PandaLM's pairs, the label the share of its three people (ties half); the soft model trains on it, the hard one on which
side it falls. Same pairs, order, seeds and steps; pairs without a majority are in neither. Held out by prompt. Measured
against every single person's vote: accuracy, log loss and Brier score of s(r(a) - r(b)), paired differences by prompt.
SmolLM2-135M: it shows the direction at this size, no more. `soft_labels_frozen` asks the same of all pairs of two sets.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import GPU, report
from benchmarks.people_data import DATA, Rated, folder_of_data, rated
from benchmarks.revise_speed import MODEL
from cai.evals import stats
from cai.records import content_hash
from cai.training.data import Element, encode

BATCH = 8


def read(path: Path, count: int) -> tuple[list[Element], list[Rated]]:
    """Elements to train on, with soft labels, and pairs held out by prompt."""
    train: list[Element] = []
    held: list[Rated] = []
    for row in rated("pandalm", path):
        if int(content_hash("held", row.element.prompt_id, length=8), 16) % 4 == 0:
            held.append(row)
        elif abs(row.p - 0.5) > 1e-9 and len(train) < count:
            train.append(row.element)
    return train, held


def hard(element: Element) -> Element:
    (pair,) = element.pairs
    return dataclasses.replace(element, pairs=(dataclasses.replace(pair, p=float(pair.p > 0.5)),))


def trained(train: list[Element], held: list[Element], *, seed: int, epochs: float) -> np.ndarray[Any, Any]:
    """p(first is better) of each held-out element by a reward model trained on `train`."""
    from datasets import Dataset
    from trl import RewardConfig

    from cai.training.algorithms.rm import scorer
    from cai.training.batches import PairCollator
    from cai.training.models import load_model, load_tokenizer
    from cai.training.trainers import SoftRewardTrainer

    tokenizer = load_tokenizer(MODEL)
    model = load_model(MODEL, "reward", dtype="float32", pad=tokenizer.pad_token_id, seed=seed)
    encoded, _ = encode(train, tokenizer, longest=512)
    with tempfile.TemporaryDirectory() as folder:
        arguments = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=epochs,
            learning_rate=5e-5,
            seed=seed,
            report_to="none",
            use_cpu=not GPU,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=1000,
            max_length=512,
        )
        trainer = SoftRewardTrainer(
            model,
            arguments,
            data_collator=PairCollator(tokenizer.pad_token_id),
            train_dataset=Dataset.from_list([e.row() for e in encoded]),
            processing_class=tokenizer,
        )
        trainer.train()
        tests, dropped = encode(held, tokenizer, longest=2048)
        assert not dropped
        scores = np.array(
            scorer(trainer, tokenizer.pad_token_id)([[*e.prompt, *c] for e in tests for c in e.completions], 8)
        )
    return np.asarray(1 / (1 + np.exp(-(scores[0::2] - scores[1::2]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    options = parser.parse_args()
    train, held = read(options.data, options.pairs)
    elements = [row.element for row in held]
    rows: dict[str, list[Any]] = {"soft": [], "hard": []}
    for seed in range(options.seeds):
        for name, data in (("soft", train), ("hard", [hard(element) for element in train])):
            rows[name].append(trained(data, elements, seed=seed, epochs=options.epochs))
            print(name, seed, "done", flush=True)
    votes = [(i, vote) for i, row in enumerate(held) for vote in row.votes]
    y = np.array([vote for _, vote in votes])
    place = np.array([i for i, _ in votes])
    prompts = [elements[i].prompt_id for i in place]

    def losses(name: str) -> dict[str, Any]:
        p = [found[place] for found in rows[name]]
        decided = y != 0.5
        return {
            "accuracy": np.mean([np.where(decided, stats.correct(each, y), 0.5) for each in p], axis=0),
            "log_loss": np.mean([stats.surprise(each, y) for each in p], axis=0),
            "brier": np.mean([(each - y) ** 2 for each in p], axis=0),
        }

    soft, hard_ = losses("soft"), losses("hard")
    told: dict[str, Any] = {}
    for name in soft:
        gap = stats.paired_difference(soft[name], hard_[name], prompts, seed=0)
        told[name] = {
            "soft": round(float(soft[name].mean()), 4),
            "hard": round(float(hard_[name].mean()), 4),
            "difference": round(gap.mean, 4),
            "ci": [round(end, 4) for end in gap.interval.row()],
        }
    report(
        claim="soft_labels_calibrate",
        value=told["log_loss"]["ci"][1],
        threshold=0.0,
        holds=told["log_loss"]["ci"][1] < 0,
        unit="upper end of the 95 % interval of the difference in held-out log loss, soft less hard; below",
        details={
            "model": "SmolLM2-135M",
            "pairs": len(train),
            "held_out": len(held),
            "prompts_held_out": len({e.prompt_id for e in elements}),
            "epochs": options.epochs,
            "seeds": options.seeds,
            "measures": told,
        },
    )


if __name__ == "__main__":
    main()
