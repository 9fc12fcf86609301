"""How far the watched refusal rate agrees with people who labelled refusals.

    python -m benchmarks.refusal_words [--data FOLDER]

`cai.faults.refusal.refuses` looks for an opening that declines, in English words, without the prompt. XSTest's
completions of three models (450 prompts each; Roettger et al. 2023, arXiv 2308.01263) carry the labels of two people
and what they settled on; complete and partial refusals count as one here. The rule was written with these completions
in sight: take the figure for an upper bound of what it reaches elsewhere.

What it misses are answers that refuse by arguing with the premise, and never say that they will not do it: people call
them refusals because they know the question. A model that refuses in that way has a low rate here; watch how the rate
changes, on one model, not how high it is.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.common import report
from benchmarks.people_data import DATA, folder_of_data
from cai.evals import stats
from cai.faults.refusal import bare, refuses

MODELS = ("gpt4", "llama2orig", "mistralinstruct")
ANSWERED = "1_full_compliance"


def main() -> None:
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=folder_of_data, default=str(DATA))
    options = parser.parse_args()
    told: dict[str, Any] = {}
    said, truth, agreed, prompts = [], [], [], []
    for model in MODELS:
        rows = pd.read_csv(options.data / "refusals" / f"xstest_v2_completions_{model}.csv.gz")
        y = (rows["final_label"] != ANSWERED).to_numpy()
        p = rows["completion"].map(refuses).to_numpy(dtype=bool)
        people = ((rows["annotation_1"] != ANSWERED) == (rows["annotation_2"] != ANSWERED)).to_numpy()
        told[model] = {
            "refusals_by_people": share(y),
            "refusals_by_words": share(p),
            "agreement": share(p == y),
            "agreement_of_two_people": share(people),
            "found_of_refusals": share(p[y]),
            "called_refusal_of_answers": share(p[~y]),
            "called_bare_refusal_of_answers": share(rows["completion"].map(bare).to_numpy(dtype=bool)[~y]),
        }
        said.append(p)
        truth.append(y)
        agreed.append(people)
        prompts += rows["id"].tolist()
    p, y = np.concatenate(said), np.concatenate(truth)
    gap = stats.paired_difference((p == y).astype(float), np.concatenate(agreed).astype(float), prompts, seed=0)
    report(
        claim="refusal_words",
        value=share(p == y),
        threshold=0.9,
        holds=float((p == y).mean()) >= 0.9,
        unit="share of 1,350 answers on which words and people agree whether they refuse; at least",
        details={
            "models": told,
            "less_agreement_of_two_people": [round(x, 4) for x in (gap.mean, *gap.interval.row())],
        },
    )


def share(values: Any) -> float:
    return round(float(values.mean()), 4)


if __name__ == "__main__":
    main()
