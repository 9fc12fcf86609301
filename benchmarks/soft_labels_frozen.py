"""Soft labels against hard ones where there is data enough to tell: a reward head on a model whose body stays as it is.

    python -m benchmarks.soft_labels_frozen [--data FOLDER]

`soft_labels` trains every weight, which two cores do for some hundred pairs. Here SmolLM2-135M's vector of an answer's
last token is computed once, and only the head that turns it into a reward is trained, by the same loss
(`cai.training.losses`): convex, so that no seed and no number of steps takes part, on all pairs of PandaLM (three
people a pair, who mostly agree) and of llmfao (up to five of a crowd, who often do not). Every prompt is predicted by a
head that has not seen it (cross-fitting over folds of prompts). Each way chooses its weight decay on prompts held out
of its training part by the loss on its own labels, as its user would.

Measured against every single person's vote, paired, clustered by prompt; llmfao has 13 prompts, for which a bootstrap's
interval is a rough one. `soft` and `hard` see the same pairs; `soft_and_ties` also those without a majority, which have
no hard label.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.common import GPU, report
from benchmarks.people_data import DATA, Array, Rated, folder_of_data, rated
from benchmarks.revise_speed import MODEL
from cai.evals import stats
from cai.records import content_hash
from cai.training.data import encode
from cai.training.losses import soft_cross_entropy

SETS = ("pandalm", "llmfao")
FOLDS = 10
DECAYS = tuple(float(10.0**power) for power in np.arange(-3, 1.1, 0.5))
LONGEST = 2048
BATCH = 8
WAYS = ("soft", "hard", "soft_and_ties")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    options = parser.parse_args()
    found = {}
    for name in SETS:
        rows = rated(name, options.data)
        apart = differences(rows)
        print(f"{name}: vectors of {len(rows)} pairs", flush=True)
        found[name] = compared(rows, {way: cross_fitted(rows, apart, way) for way in WAYS})
        print(f"{name}: {found[name]['measures']['log_loss']}", flush=True)
    worst = max(each["measures"]["log_loss"]["hard"]["ci"][1] for each in found.values())
    report(
        claim="soft_labels_calibrate_frozen",
        value=worst,
        threshold=0.0,
        holds=worst < 0,
        unit="upper end of the 95 % interval of the difference in log loss, soft less hard, worse of two sets; below",
        details={"model": "SmolLM2-135M, its body untrained", "folds": FOLDS, "sets": found},
    )


def differences(rows: Sequence[Rated]) -> Array:
    """Vector of the first answer less that of the second, at the last token; shape (pairs, width)."""
    import torch

    from cai.training.models import load_model, load_tokenizer

    tokenizer = load_tokenizer(MODEL)
    model = load_model(MODEL, "reward", dtype="float32", pad=tokenizer.pad_token_id, seed=0).eval()
    body = model.base_model.to("cuda" if GPU else "cpu")
    encoded, dropped = encode([row.element for row in rows], tokenizer, longest=LONGEST)
    assert not dropped
    texts = [tuple(e.prompt + completion) for e in encoded for completion in e.completions]
    distinct = sorted(set(texts), key=lambda ids: (len(ids), ids))
    vector: dict[tuple[int, ...], Array] = {}
    for begin in range(0, len(distinct), BATCH):
        some = distinct[begin : begin + BATCH]
        ids = torch.full((len(some), max(map(len, some))), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(some):
            ids[place, : len(row)] = torch.tensor(row)
            mask[place, : len(row)] = 1
        with torch.no_grad():
            states = body(input_ids=ids.to(body.device), attention_mask=mask.to(body.device)).last_hidden_state.cpu()
        vector |= {row: states[place, len(row) - 1].double().numpy() for place, row in enumerate(some)}
    return np.array([vector[first] - vector[second] for first, second in zip(texts[::2], texts[1::2], strict=True)])


def cross_fitted(rows: Sequence[Rated], apart: Array, way: str) -> Array:
    """p(first is better) of every pair, by a head trained on other prompts."""
    p = np.array([row.p for row in rows])
    decided = np.abs(p - 0.5) > 1e-9
    used = np.ones_like(decided) if way == "soft_and_ties" else decided
    label = np.round(p) if way == "hard" else p
    fold = folds(rows)
    told = np.full(len(rows), np.nan)
    for out in range(FOLDS):
        train = used & (fold != out)
        loss = dict.fromkeys(DECAYS, 0.0)
        for inner in range(FOLDS):
            fitted, judged = train & (fold != inner), train & (fold == inner)
            if not judged.any():
                continue  # the fold held out, or one without a prompt
            for decay in DECAYS:
                guess = predicted(head(apart[fitted], label[fitted], decay), apart[judged])
                loss[decay] += float(stats.surprise(guess, label[judged]).sum())
        best = min(DECAYS, key=lambda decay: loss[decay])
        told[fold == out] = predicted(head(apart[train], label[train], best), apart[fold == out])
    return told


def folds(rows: Sequence[Rated]) -> Any:
    """Fold of each pair; prompts are dealt out in turn, in the order of a hash."""
    prompts = sorted({row.element.prompt_id for row in rows}, key=lambda name: content_hash("fold", name))
    place = {name: number % FOLDS for number, name in enumerate(prompts)}
    return np.array([place[row.element.prompt_id] for row in rows])


def head(apart: Array, label: Array, decay: float) -> tuple[Array, Array]:
    """Weights of least mean loss and decay / 2 |w|^2, and the scale that each width is divided by."""
    import torch

    scale = np.sqrt((apart**2).mean(axis=0)) + 1e-9
    x, y = torch.tensor(apart / scale), torch.tensor(label)
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        loss = soft_cross_entropy(x @ w, y).mean() + decay / 2 * (w**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return w.detach().numpy(), scale


def predicted(fitted: tuple[Array, Array], apart: Array) -> Array:
    weights, scale = fitted
    return np.asarray(1 / (1 + np.exp(-(apart / scale) @ weights)))


def compared(rows: Sequence[Rated], p: dict[str, Array]) -> dict[str, Any]:
    """Measures of each way, and of soft less each other way, over single votes."""
    y = np.array([vote for row in rows for vote in row.votes])
    place = np.array([i for i, row in enumerate(rows) for _ in row.votes])
    prompts = [rows[i].element.prompt_id for i in place]
    measures: dict[str, Any] = {}
    for name in ("accuracy", "log_loss", "brier"):
        each = {way: measured(name, p[way][place], y) for way in WAYS}
        measures[name] = {"soft": round(float(each["soft"].mean()), 4)}
        for way in WAYS[1:]:
            gap = stats.paired_difference(each["soft"], each[way], prompts, seed=0)
            measures[name][way] = {
                "mean": round(float(each[way].mean()), 4),
                "soft_less_it": round(gap.mean, 4),
                "ci": [round(end, 4) for end in gap.interval.row()],
            }
    measures["ece"] = {way: round(stats.ece(p[way][place], y), 4) for way in WAYS}
    return {
        "pairs": len(rows),
        "without_majority": sum(abs(row.p - 0.5) < 1e-9 for row in rows),
        "votes": len(y),
        "prompts": len(set(prompts)),
        "measures": measures,
    }


def measured(name: str, p: Array, y: Array) -> Array:
    """One number a vote; accuracy of a tie is half, whatever was said."""
    if name == "accuracy":
        return np.where(y != 0.5, stats.correct(p, y), 0.5)
    return stats.surprise(p, y) if name == "log_loss" else np.asarray((p - y) ** 2)


if __name__ == "__main__":
    main()
