"""The people's ceiling: how well one person agrees with the others, and how well the judge does on the same question.

Leave one out: of each pair with at least three people's labels, each person in turn is set aside, and what most of the
others say is the reference. Where no verdict has most of the others (one says the one, one the other), there is no
reference, and that turn is left out. Person and judge are measured against the same references, so that the two can be
compared; references of one prompt are one case for the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cai.evals import stats
from cai.evals.pairs import Label, LabelledPair, plurality

Turn = tuple[Label, Label, Label, str]
"""A reference, what the person set aside says, what the judge says, and the prompt."""


def people(judged: Sequence[tuple[LabelledPair, Label | None]], *, seed: int) -> dict[str, Any] | None:
    """The person's and the judge's agreement with the others.

    Returns:
        `two_way`: over references that prefer an answer; a verdict that is a tie counts half. `three_way`: over all
        references, a tie being right only where the others say so. Each with `n` turns, `pairs`, `person`, `judge`,
        their intervals, and the paired difference judge less person. None where no pair has three labels.
    """
    turns = [turn for pair, said in judged if said is not None for turn in _turns(pair, said)]
    if not turns:
        return None
    decided = [turn for turn in turns if turn[0] != "tie"]
    return {
        "two_way": _agreement(
            decided, [_half(t[1], t[0]) for t in decided], [_half(t[2], t[0]) for t in decided], seed
        ),
        "three_way": _agreement(
            turns, [float(t[1] == t[0]) for t in turns], [float(t[2] == t[0]) for t in turns], seed
        ),
    }


def _turns(pair: LabelledPair, said: Label) -> list[Turn]:
    if len(pair.labels) < 3:
        return []
    found: list[Turn] = []
    for index, own in enumerate(pair.labels):
        reference = plurality(pair.labels[:index] + pair.labels[index + 1 :])
        if reference is not None:
            found.append((reference, own, said, pair.cluster))
    return found


def _half(said: Label, reference: Label) -> float:
    return 0.5 if said == "tie" else float(said == reference)


def _agreement(turns: Sequence[Turn], person: list[float], judge: list[float], seed: int) -> dict[str, Any]:
    prompts = [turn[3] for turn in turns]
    if not turns:
        return {"n": 0, "person": None, "person_ci": None, "judge": None, "judge_ci": None, "difference": None}
    return {
        "n": len(turns),
        "person": sum(person) / len(person),
        "person_ci": stats.share_interval(person, prompts, seed=seed).row(),
        "judge": sum(judge) / len(judge),
        "judge_ci": stats.share_interval(judge, prompts, seed=seed).row(),
        "difference": stats.paired_difference(judge, person, prompts, seed=seed).row(),
    }
