"""Make sure the reward model works first: what its held-out pairs say of it, and whether PPO may use it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cai.evals import stats
from cai.store import write_json
from cai.training.data import Encoded

NAME = "report.json"
LEAST_PAIRS = 30
Score = Callable[[Sequence[Sequence[int]], int], list[float]]
"""Scores of token rows, in batches of so many, taken in the order given."""


def report(test: Sequence[Encoded], score: Score, *, threshold: float, seed: int) -> dict[str, Any]:
    """Measure a reward model on held-out pairs.

    Accuracy is 1 where the better answer has the higher score, 1/2 where both are equal; ties are left out.
    With intervals by prompt: overall, by axis and source. Calibration is that of s(r(first) - r(second)): `ece` against
    the side that the label is on (ties left out), `soft_ece` and `log_loss` against the soft label. Length bias: how
    often the longer answer has the higher score, beside how often it is the better one.

    Args:
        threshold: least accuracy, of which the interval's lower end must be above 1/2 too; no axis and no source may
            have its whole interval below it.
    """
    rows = [[*e.prompt, *ids] for e in test for ids in e.completions]
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    scores = [0.0] * len(rows)
    for i, one in zip(by_length, score([rows[i] for i in by_length], 8), strict=True):
        scores[i] = one
    drift = _drift(rows, by_length, scores, score)
    spread = float(np.std(scores)) if scores else 0.0
    pairs: list[dict[str, Any]] = []
    offset = 0
    for e in test:
        for pair in e.element.pairs:
            r = scores[offset + pair.first] - scores[offset + pair.second]
            lengths = [len(e.completions[k]) for k in (pair.first, pair.second)]
            said = {"r": r, "p": pair.p, "axis": pair.axis, "source": pair.source, "prompt": e.element.prompt_id}
            said["tie"] = pair.tie
            pairs.append(said | {"longer": float(np.sign(lengths[0] - lengths[1]))})
        offset += len(e.completions)
    decided = [pair for pair in pairs if not pair["tie"]]
    told: dict[str, Any] = {"pairs": len(pairs), "decided": len(decided), "batch_drift": drift, "score_spread": spread}
    if not decided:
        return told | {"usable": False, "why": "there are no held-out pairs to measure it on"}
    told["accuracy"] = _accuracy(decided, seed)
    for key in ("axis", "source"):
        groups = sorted({pair[key] for pair in decided})
        told[f"by_{key}"] = {g or "overall": _accuracy([p for p in decided if p[key] == g], seed) for g in groups}
    q = 1 / (1 + np.exp(-np.array([pair["r"] for pair in pairs])))
    p = np.array([pair["p"] for pair in pairs])
    hard = np.array([pair["p"] > 0.5 for pair in decided], dtype=np.float64)
    told["log_loss"] = round(float(-(p * np.log(q + 1e-12) + (1 - p) * np.log(1 - q + 1e-12)).mean()), 4)
    told["soft_ece"] = round(stats.ece(q, p), 4)
    told["ece"] = round(stats.ece(1 / (1 + np.exp(-np.array([pair["r"] for pair in decided]))), hard), 4)
    unequal = [pair for pair in decided if pair["longer"]]
    if unequal:
        told["longer_scores_higher"] = round(float(np.mean([pair["r"] * pair["longer"] > 0 for pair in unequal])), 4)
        told["longer_is_better"] = round(
            float(np.mean([(pair["p"] - 0.5) * pair["longer"] > 0 for pair in unequal])), 4
        )
    why = _doubt(told, threshold)
    return told | {"usable": not why, "why": why, "threshold": threshold}


def _drift(rows: Sequence[list[int]], by_length: Sequence[int], scores: Sequence[float], score: Score) -> float:
    """How far a row's score depends on what is beside it: the shortest rows and the longest scored in one batch, where
    the short ones are padded most, and each by itself.
    """
    probe = list(dict.fromkeys([*by_length[:4], *by_length[-4:]]))
    if not probe:
        return 0.0
    mixed, alone = (score([rows[i] for i in probe], size) for size in (len(probe), 1))
    return max(max(abs(a - one), abs(scores[i] - one)) for i, a, one in zip(probe, mixed, alone, strict=True))


def _doubt(told: dict[str, Any], threshold: float) -> str:
    mean, low = told["accuracy"]["mean"], told["accuracy"]["ci"][0]
    if told["decided"] < LEAST_PAIRS:
        return f"{told['decided']} held-out pairs are too few to judge it by ({LEAST_PAIRS} are needed)"
    if mean < threshold:
        return f"it is right on {mean:.1%} of {told['decided']} held-out pairs; {threshold:.1%} are asked for"
    if low <= 0.5:
        return f"it may be no better than a coin ({mean:.1%}, from {low:.1%})"
    for part in ("axis", "source"):
        for name, found in told[f"by_{part}"].items():
            if found["ci"][1] < threshold:
                return f"on {part} {name} it is right on {found['mean']:.1%} of {found['n']} held-out pairs"
    if told["batch_drift"] > 0.05 * max(told["score_spread"], 1e-6):
        return f"its scores depend on the batch by {told['batch_drift']:.3g}"
    return ""


def _accuracy(pairs: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    right = [0.5 if pair["r"] == 0 else float((pair["r"] > 0) == (pair["p"] > 0.5)) for pair in pairs]
    interval = stats.share_interval(right, [pair["prompt"] for pair in pairs], seed=seed)
    return {"mean": round(float(np.mean(right)), 4), "ci": [round(end, 4) for end in interval.row()], "n": len(right)}


def doubt(checkpoint: Path) -> str:
    """What speaks against using a reward model: its own report, or that it has none; "" where nothing."""
    try:
        told = json.loads((checkpoint / NAME).read_text("utf-8"))
    except FileNotFoundError:
        return f"nothing says how good it is: it has no {NAME} of `cai train rm`"
    except (OSError, ValueError) as error:
        return f"its {NAME} cannot be read: {error}"
    return "" if told.get("usable") else str(told.get("why") or "its report calls it unusable")


def withdraw(checkpoint: Path) -> None:
    """Before other weights are written: what an older report says is not said of them."""
    (checkpoint / NAME).unlink(missing_ok=True)


def write(checkpoint: Path, told: dict[str, Any]) -> None:
    """Beside the weights, where PPO looks for it."""
    write_json(checkpoint / NAME, told)
