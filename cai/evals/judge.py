"""How good a judge is: its votes on pairs of which people said which answer is better.

What counts as what:

- The verdict on a pair is what the votes on it come to by `cai.stages.prefer`, as in a run: both orders averaged, and
  no verdict where one order failed. A pair without a verdict is no data: it is in no score, and `coverage` says what
  share of the pairs has one.
- `accuracy`: 1 where the verdict is on the people's side, 1/2 where it is exactly 0.5; over pairs that have a verdict
  and of which people prefer one answer. Pairs that people call a tie are in no two-sided score.
- Every interval is 95 %, and treats the pairs of a prompt as one case (`cai.evals.stats`); prompts with the same
  opening are one, as in the splits of a run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai.engine import Generate
from cai.evals import stats
from cai.evals.pairs import Label, LabelledPair
from cai.evals.people import people
from cai.judging import Judge, Question
from cai.records import Comparison, Group, Vote
from cai.scheduler import together
from cai.stages.prefer import Rule, preferences
from cai.stages.votestats import VoteTally


@dataclass(frozen=True)
class Outcome:
    """What came of one pair.

    Attributes:
        p: soft label of the comparison's `a`; None where there is no verdict. Which answer is `a` is drawn by hash.
        p_tie: the part of it that is said to be a tie.
        error: why the pair has not even votes: the backend failed on it, ...; "" otherwise.
    """

    pair: LabelledPair
    group: Group
    votes: tuple[Vote, ...]
    p: float | None = None
    p_tie: float = 0.0
    error: str = ""
    tie: bool = False

    @property
    def comparison(self) -> Comparison:
        (found,) = self.group.comparisons()
        return found

    @property
    def y(self) -> float:
        """1.0 where people's better answer is the comparison's `a`."""
        return float(self.comparison.a.text == self.pair.chosen)

    @property
    def p_chosen(self) -> float | None:
        """Soft label of the answer that people prefer."""
        return None if self.p is None else self.p if self.y else 1 - self.p

    @property
    def scored(self) -> bool:
        """Whether two-sided scores count it: there is a verdict, and people prefer one answer."""
        return self.p is not None and self.pair.gold == "chosen"

    @property
    def said(self) -> Label | None:
        """The verdict as one of three: a tie as a preference is one (`Preference.status`), or one at 0.5."""
        p = self.p_chosen
        if p is None:
            return None
        if self.tie or p == 0.5:
            return "tie"
        return "chosen" if p > 0.5 else "rejected"

    def row(self) -> dict[str, Any]:
        """JSON object, one line of `verdicts.jsonl`."""
        return {
            "id": self.pair.id,
            "subset": self.pair.subset,
            "prompt_id": self.pair.prompt.id,
            "comparison_id": self.comparison.id,
            "p_chosen": self.p_chosen,
            "p_tie": self.p_tie,
            "verdict": self.said,
            "people": self.pair.gold,
            "p_human": self.pair.p_human,
            "error": self.error,
        }


async def ask(judge: Judge, group: Group, questions: Sequence[Question], generate: Generate) -> tuple[Vote, ...]:
    """The votes of `judge` on a group of two, all questions at once.

    Raises:
        BackendError: a model did not answer.
    """
    items: Sequence[Any] = group.comparisons() if judge.unit == "pair" else (group,)
    votes = await together(judge(item, question, generate) for item in items for question in questions)
    return tuple(vote for each in votes for vote in each)


def outcome(pair: LabelledPair, group: Group, votes: Sequence[Vote], rule: Rule) -> Outcome:
    """What the votes on a pair come to."""
    (found,) = preferences(group, votes, rule, axes=[""])
    (comparison,) = group.comparisons()
    p = found.p if found.p is None or found.chosen == comparison.a.text else 1 - found.p
    return Outcome(pair, group, tuple(votes), p, found.p_tie, tie=found.status == "tie")


@dataclass(frozen=True)
class Scored:
    """The pairs that two-sided scores count, as arrays; `prompts` are their clusters."""

    p: stats.Array
    y: stats.Array
    prompts: tuple[str, ...]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Scored:
        kept = [each for each in outcomes if each.scored]
        prompts = tuple(each.pair.cluster for each in kept)
        return cls(
            stats.array([each.p for each in kept if each.p is not None]),
            stats.array([each.y for each in kept]),
            prompts,
        )

    def row(self) -> dict[str, Any]:
        """Brier score, log loss and calibration error; None of nothing."""
        if not len(self.p):
            return {"n": 0, "brier": None, "log_loss": None, "ece": None}
        return {
            "n": len(self.p),
            "brier": stats.brier(self.p, self.y),
            "log_loss": stats.log_loss(self.p, self.y),
            "ece": stats.ece(self.p, self.y),
        }

    def accuracy(self, seed: int) -> dict[str, Any]:
        if not len(self.p):
            return {"accuracy": None, "accuracy_ci": None}
        right = stats.correct(self.p, self.y)
        interval = stats.share_interval(right, self.prompts, seed=seed)
        return {"accuracy": float(right.mean()), "accuracy_ci": interval.row()}


def measure(outcomes: Sequence[Outcome], *, seed: int) -> dict[str, Any]:
    """The figures of a report: JSON, None for what does not exist (never NaN)."""
    tally = VoteTally()
    for each in outcomes:
        tally.add(each.group, each.votes)
    votes = tally.report().overall
    scored = Scored.of(outcomes)
    judged = [each for each in outcomes if each.p is not None]
    subsets = sorted({each.pair.subset for each in outcomes})
    return {
        "n": len(outcomes),
        **scored.accuracy(seed),
        **{key: value for key, value in scored.row().items() if key != "n"},
        "ece_by_chance": stats.ece_by_chance(scored.p, seed=seed) if len(scored.p) else None,
        "flip_rate": votes.flip_rate,
        "first_slot_rate": votes.first_slot_rate,
        "tie_rate": sum(each.said == "tie" for each in judged) / len(judged) if judged else None,
        "parse_failures": votes.votes - votes.verdicts,
        "failures": {**votes.failures, **Counter(each.error for each in outcomes if each.error)},
        "samples": votes.samples,
        "sample_failures": dict(votes.sample_failures),
        "votes": votes.votes,
        "votes_in_an_order": votes.ordered,
        "questions_in_both_orders": votes.both_orders,
        "mean_mass": votes.mean_mass,
        "judged": len(judged),
        "coverage": len(judged) / len(outcomes) if outcomes else None,
        "scored": len(scored.p),
        "people_tie": sum(each.pair.gold != "chosen" for each in outcomes),
        "prompts": len({each.pair.cluster for each in outcomes}),
        "three_way": _three_way(judged, seed),
        "people": people([(each.pair, each.said) for each in judged], seed=seed),
        "subsets": {name: _subset([o for o in outcomes if o.pair.subset == name], seed) for name in subsets}
        if len(subsets) > 1
        else {},
    }


def _subset(outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
    tally = VoteTally()
    for each in outcomes:
        tally.add(each.group, each.votes)
    votes, scored = tally.report().overall, Scored.of(outcomes)
    return {
        "n": len(outcomes),
        **scored.accuracy(seed),
        "brier": scored.row()["brier"],
        "flip_rate": votes.flip_rate,
        "first_slot_rate": votes.first_slot_rate,
        "parse_failures": votes.votes - votes.verdicts,
        "judged": sum(each.p is not None for each in outcomes),
    }


def _three_way(judged: Sequence[Outcome], seed: int) -> dict[str, Any] | None:
    """Agreement in three classes, where either side knows ties: with most people's verdict, its being a tie included.

    Pairs on which no verdict has most people are left out.
    """
    kept = [each for each in judged if each.pair.gold is not None]
    if not kept or not any("tie" in (each.said, each.pair.gold) for each in kept):
        return None
    same = [float(each.said == each.pair.gold) for each in kept]
    interval = stats.share_interval(same, [each.pair.cluster for each in kept], seed=seed)
    return {"n": len(kept), "agreement": sum(same) / len(same), "agreement_ci": interval.row()}


def advice(report: Mapping[str, Any]) -> str:
    """One plain sentence that says what to make of the figures."""
    accuracy, interval = report["accuracy"], report["accuracy_ci"]
    if accuracy is None:
        return "There is no verdict to go by: see the failures; perhaps this model cannot play this judge's part."
    said = []
    slot, flips = report["first_slot_rate"], report["flip_rate"]
    if slot is not None and abs(slot - 0.5) >= 0.15 and not stats.wilson(slot, report["judged"]).holds(0.5):
        name = "first" if slot > 0.5 else "second"
        read = "read only both orders together" if flips is not None else "ask in both orders"
        said.append(f"it prefers the {name} slot in {max(slot, 1 - slot):.0%} of cases: {read}")
    elif flips is not None and flips >= 0.2:
        said.append(f"it changes its mind with the order in {flips:.0%} of cases: read only both orders together")
    if report["coverage"] < 0.9:
        said.append(f"only {report['coverage']:.0%} of the pairs got a verdict, so the figures may be of the easy ones")
    between = f"{interval[0]:.2f} to {interval[1]:.2f}"
    if interval[0] > 0.5:
        said.append(f"it agrees with people more often than a coin would ({accuracy:.2f}, {between})")
    elif interval[1] < 0.5:
        said.append(f"it sides against people ({accuracy:.2f}, {between}): look at its question")
    else:
        said.append(f"on these pairs it cannot be told from a coin ({accuracy:.2f}, {between})")
    found = report.get("people")
    if found and found["two_way"]["difference"]:
        gap = found["two_way"]["difference"]
        low, high = gap["ci"]
        word = "below" if high < 0 else "above" if low > 0 else "not told apart from"
        said.append(f"it is {word} a single person ({found['two_way']['person']:.2f})")
    off = report["ece"] > max(0.1, report["ece_by_chance"]) and "calibration" not in report
    if interval[0] > 0.5 and off:
        said.append(f"its probabilities are off by {report['ece']:.2f} on average: --calibrate mends that")
    text = "; ".join(said)
    return text[0].upper() + text[1:] + "."
