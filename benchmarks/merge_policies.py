"""Accuracy of the merge policies on people's labels, with noise put in, beside majority and crowd-kit's Dawid-Skene.

    python -m benchmarks.merge_policies [--data FOLDER] [--splits 20]

On PandaLM (999 pairs, 3 people, 2 AI judges) and llmfao (2,139 pairs, 124 workers, 1 AI judge): each item's people
are split at random into those whose votes are merged and those whose majority is the reference, 20 times; 0, 10 or
30 % of the merged votes are replaced by random labels. Accuracy is the share of references that the merged label
agrees with (0.5 counts half), averaged over splits per item; differences are paired by item, with 95 % intervals
clustered by prompt.

Claims, fixed before looking: the default policy is never worse than people alone (no interval below 0, on either data
set at any noise), and with 30 % noise the fused policy is better than people alone (interval above 0, on each set).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks.common import report
from benchmarks.people_data import DATA, DataSet, Votes, folder_of_data, left_out, llmfao, pandalm, with_noise
from cai.evals import stats
from cai.labels.fuse import LABELS, ballot, decide
from cai.labels.policy import load_policy

NOISE = (0.0, 0.1, 0.3)
POLICIES = ("strict", "human_first", "reliability", "dawid_skene", "fused")


def crowd_kit(votes: Votes, kind: str, items: int) -> Any:
    """crowd-kit's majority vote or Dawid-Skene, as the probability that a is better."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene, MajorityVote

    frame = pd.DataFrame([(i, w, LABELS[said]) for i, w, said in votes], columns=["task", "worker", "label"])
    model = DawidSkene(n_iter=100) if kind == "dawid_skene" else MajorityVote()
    found = model.fit_predict_proba(frame)
    p = np.full(items, np.nan)
    columns = {name: found[name].to_numpy() if name in found else 0.0 for name in LABELS}
    p[found.index.to_numpy()] = columns["a"] + columns["tie"] / 2
    return p


def accuracies(data: DataSet, noise: float, splits: int) -> dict[str, Any]:
    """Per item (those with a reference in some split) and method: mean accuracy over splits, NaN elsewhere."""
    sums: dict[str, Any] = defaultdict(lambda: np.zeros(len(data.prompts)))
    seen = np.zeros(len(data.prompts))
    names = [str(i) for i in range(len(data.prompts))]
    for split in range(splits):
        kept, truth = left_out(data, split)
        votes = with_noise(kept, noise, 1000 + split)
        given = ballot(names, [(i, w, LABELS[said]) for i, w, said in votes], data.ai, data.prompts)
        said = {name: decide(load_policy(name)[1], given).p for name in POLICIES}
        said["crowd-kit majority"] = crowd_kit(votes, "majority", len(names))
        said["crowd-kit Dawid-Skene"] = crowd_kit(votes, "dawid_skene", len(names))
        items = np.array(sorted(truth))
        y = np.array([1.0 if truth[i] == 0 else 0.0 for i in items])
        seen[items] += 1
        for name, p in said.items():
            here = np.where(np.isnan(p[items]), 0.5, p[items])
            sums[name][items] += stats.correct(np.round(here, 12), y)
    with np.errstate(invalid="ignore"):
        return {name: total / seen for name, total in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    details: dict[str, Any] = {"splits": options.splits}
    least = {"human_first": np.inf, "fused": np.inf}
    for data in (pandalm(options.data), llmfao(options.data)):
        for noise in NOISE:
            found = accuracies(data, noise, options.splits)
            scored = ~np.isnan(found["strict"])
            prompts = [prompt for prompt, kept in zip(data.prompts, scored, strict=True) if kept]
            rows: dict[str, Any] = {}
            for name, values in found.items():
                gap = stats.paired_difference(values[scored], found["strict"][scored], prompts, seed=0)
                rows[name] = {
                    "accuracy": round(float(values[scored].mean()), 4),
                    "minus_people": round(gap.mean, 4),
                    "ci": [round(end, 4) for end in gap.interval.row()],
                }
            details[f"{data.name}, {noise:.0%} noise"] = {
                "items": int(scored.sum()),
                "prompts": len(set(prompts)),
                "methods": rows,
            }
            least["human_first"] = min(least["human_first"], rows["human_first"]["ci"][1])
            if noise == 0.3:
                least["fused"] = min(least["fused"], rows["fused"]["ci"][0])
            told = {name: (row["accuracy"], row["ci"]) for name, row in rows.items()}
            print(data.name, noise, int(scored.sum()), told, flush=True)
    report(
        claim="merge_default_never_worse_than_people",
        value=float(least["human_first"]),
        threshold=0.0,
        holds=bool(least["human_first"] >= 0),
        unit="smallest upper end of the intervals of default less people alone, over data sets and noise; at least",
        details=details,
    )
    report(
        claim="merge_fused_better_where_people_are_noisy",
        value=float(least["fused"]),
        threshold=0.0,
        holds=bool(least["fused"] > 0),
        unit="smaller lower end of the intervals of fused less people alone, 30 % noise, both data sets; above",
        details=details,
    )


if __name__ == "__main__":
    main()
