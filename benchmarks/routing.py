"""What a budget of people's labels buys: pairs chosen by routing against pairs drawn at random.

    python -m benchmarks.routing [--data FOLDER] [--splits 20]

On PandaLM and llmfao. Each pair starts with the AI judges' label; a budget of 10, 25 or 50 % of the pairs gets a
person's vote, chosen by `cai.labels.route` (calibrated entropy, spread over prompts, a tenth at random) or drawn at
random. The reference is what the other people say. Calibration is fitted to the votes of a random 4 %, which are part
of every budget of both. Merged by the default policy. Paired differences in accuracy, 95 % intervals clustered by
prompt, averaged over 20 splits.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.common import report
from benchmarks.people_data import DATA, DataSet, folder_of_data, left_out, llmfao, pandalm
from cai.evals import stats
from cai.labels.fuse import LABELS, ballot, decide, judge_logits
from cai.labels.policy import load_policy
from cai.labels.route import choose

BUDGETS = (0.1, 0.25, 0.5)


def accuracy(data: DataSet, splits: int) -> dict[float, tuple[Any, Any]]:
    """By budget: mean accuracy of routed and of random, per item, NaN where there is no reference."""
    n = len(data.prompts)
    names = [str(i) for i in range(n)]
    policy = load_policy("human_first")[1].model_copy(update={"split": "tie", "conflict_margin": 1.0})
    sums = {budget: (np.zeros(n), np.zeros(n)) for budget in BUDGETS}
    seen = np.zeros(n)
    for split in range(splits):
        votes, truth = left_out(data, split)
        rng = np.random.default_rng(split)
        one = {i: (i, who, said) for i, who, said in votes}  # a person's vote of each item
        first = set(rng.permutation(n)[: n // 25].tolist())
        known = ballot(names, [(i, w, LABELS[s]) for i, w, s in one.values() if i in first], data.ai, data.prompts)
        p = 1 / (1 + np.exp(-judge_logits(known)))
        labelled = np.array([i in first for i in range(n)])
        items = np.array(sorted(truth))
        y = np.array([1.0 if truth[i] == 0 else 0.0 for i in items])
        seen[items] += 1
        for budget in BUDGETS:
            more = int(n * budget) - len(first)
            routed = {pick.index for pick in choose(names, p, data.prompts, labelled, max(0, more), seed=split)}
            free = [i for i in rng.permutation(n).tolist() if i not in first]
            for place, chosen in enumerate((routed, set(free[: max(0, more)]))):
                asked = [(i, w, LABELS[s]) for i, w, s in one.values() if i in first or i in chosen]
                found = decide(policy, ballot(names, asked, data.ai, data.prompts)).p[items]
                said = np.round(np.where(np.isnan(found), 0.5, found), 12)
                sums[budget][place][items] += stats.correct(said, y)
    with np.errstate(invalid="ignore"):
        return {budget: (one / seen, other / seen) for budget, (one, other) in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    details: dict[str, Any] = {"splits": options.splits}
    least = np.inf
    for data in (pandalm(options.data), llmfao(options.data)):
        for budget, (routed, random) in accuracy(data, options.splits).items():
            scored = ~np.isnan(routed)
            prompts = [prompt for prompt, kept in zip(data.prompts, scored, strict=True) if kept]
            gap = stats.paired_difference(routed[scored], random[scored], prompts, seed=0)
            row: dict[str, Any] = {
                "items": int(scored.sum()),
                "prompts": len(set(prompts)),
                "routed": round(float(routed[scored].mean()), 4),
                "random": round(float(random[scored].mean()), 4),
                "difference": round(gap.mean, 4),
                "ci": [round(end, 4) for end in gap.interval.row()],
            }
            details[f"{data.name}, {budget:.0%}"] = row
            print(data.name, budget, row, flush=True)
            least = min(least, gap.interval.low)
    report(
        claim="routing_vs_random",
        value=float(least),
        threshold=0.0,
        holds=bool(least > 0),
        unit="smallest lower end of the intervals of routed less random, all budgets, both data sets; above",
        details=details,
    )


if __name__ == "__main__":
    main()
