"""How judges behave: position bias, flips, ties, failures, decisiveness, agreement with the label.

Pure sums over votes, taken up group by group. Every rate stands beside the number it is a share of, since most are
small for a principle that is seldom drawn; a rate of nothing is None, never 0.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai.judging.panels import disagreement
from cai.records import Group, Preference, Vote, verdict_of
from cai.stages.prefer import Answer, Rule, answer, by_judge, by_question, orders, p_of, side


@dataclass(frozen=True)
class VoteStats:
    """Statistics over some votes.

    Attributes:
        votes: all of them; `verdicts` those that say something, `failures` the others by their error.
        samples: rationales of judges that write them, also of votes that have a verdict; `sample_failures` those behind
            which nothing was read, by their error.
        ordered: verdicts on two answers that were shown in an order.
        first_slot_rate: share of `ordered` that prefer what was shown first, a tie counting half. Which answer comes
            first is drawn by hash, so without bias it is 0.5.
        position_bias: mean over `ordered` of the soft label of what was shown first, minus 0.5.
        both_orders: questions with a verdict in both orders; `flip_rate` is the share of them with opposite ones.
        tie_rate: share of `verdicts` in which a tie is likelier than either answer, or the soft label is 0.5.
        with_mass: verdicts and failures that carry a mass; `mean_mass` is over these.
        decisiveness: mean of |p - 0.5| over `verdicts`, 0 to 0.5.
        labelled: verdicts on comparisons whose label is neither a tie nor missing; `agreement` is the share of them on
            the label's side, a tie counting half. The label is made of these votes too, so a judge alone agrees fully.
    """

    votes: int
    verdicts: int
    failures: Mapping[str, int]
    ordered: int
    first_slot_rate: float | None
    position_bias: float | None
    both_orders: int
    flip_rate: float | None
    tie_rate: float | None
    with_mass: int
    mean_mass: float | None
    decisiveness: float | None
    labelled: int
    agreement: float | None
    samples: int = 0
    sample_failures: Mapping[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class VoteReport:
    """Statistics over all votes, by judge (its name), and by principle ("" for the judge's own question).

    A vote on a question made from several principles counts for each of them.

    Attributes:
        panels: comparisons and axes with verdicts of several judges; `disagreement` is the mean over these of how far
            the judges' labels differ, in bits from 0 to 1 (see `cai.judging.panels`).
    """

    overall: VoteStats
    by_judge: Mapping[str, VoteStats]
    by_principle: Mapping[str, VoteStats]
    panels: int = 0
    disagreement: float | None = None

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return dataclasses.asdict(self)


@dataclass
class _Sums:
    votes: int = 0
    verdicts: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ordered: int = 0
    first: float = 0.0
    bias: float = 0.0
    both: int = 0
    flips: int = 0
    ties: int = 0
    masses: int = 0
    mass: float = 0.0
    decided: float = 0.0
    labelled: int = 0
    agreed: float = 0.0
    samples: int = 0
    unread: Counter[str] = field(default_factory=Counter)

    def vote(self, vote: Vote, p: float | None, label: int) -> None:
        """Take up a vote with its soft label `p`; `label` is the side of the comparison's preference."""
        self.votes += 1
        for sample in vote.raw.get("samples", ()):
            self.samples += 1
            if sample.get("error"):
                self.unread[sample["error"]] += 1
        if vote.mass is not None:
            self.masses += 1
            self.mass += vote.mass
        if p is None:
            self.failures[vote.error or "no_verdict"] += 1
            return
        self.verdicts += 1
        self.ties += verdict_of(p, vote.p_tie) == "tie"
        self.decided += abs(p - 0.5)
        if vote.order:
            p_first = p if vote.order == "ab" else 1 - p
            self.ordered += 1
            self.first += (side(p_first) + 1) / 2
            self.bias += p_first - 0.5
        if label:
            self.labelled += 1
            self.agreed += (side(p) * label + 1) / 2

    def stats(self) -> VoteStats:
        def rate(total: float, n: int) -> float | None:
            return total / n if n else None

        return VoteStats(
            votes=self.votes,
            verdicts=self.verdicts,
            failures=dict(sorted(self.failures.items())),
            ordered=self.ordered,
            first_slot_rate=rate(self.first, self.ordered),
            position_bias=rate(self.bias, self.ordered),
            both_orders=self.both,
            flip_rate=rate(self.flips, self.both),
            tie_rate=rate(self.ties, self.verdicts),
            with_mass=self.masses,
            mean_mass=rate(self.mass, self.masses),
            decisiveness=rate(self.decided, self.verdicts),
            labelled=self.labelled,
            agreement=rate(self.agreed, self.labelled),
            samples=self.samples,
            sample_failures=dict(sorted(self.unread.items())),
        )


class VoteTally:
    """Takes up the votes of one group after another; memory does not depend on their number.

    Args:
        rule: the one by which the votes become labels, so that judges of a panel are compared by what each one said.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule or Rule()
        self._overall = _Sums()
        self._judges: dict[str, _Sums] = {}
        self._principles: dict[str, _Sums] = {}
        self._panels, self._bits = 0, 0.0

    def add(self, group: Group, votes: Iterable[Vote], labels: Sequence[Preference] = ()) -> None:
        """Take up a group's votes and what they came to (as `preferences` gave it; without, no agreement is counted).

        What a tournament inferred nobody was asked: such votes are no second judge's, and are left out.

        Raises:
            InputError: a vote whose probability is none.
        """
        texts = {comparison.id: comparison.a.text for comparison in group.comparisons()}
        sides = {
            (label.comparison_id, label.axis): 1 if label.chosen == texts.get(label.comparison_id) else -1
            for label in labels
            if label.status == "ok"
        }
        said: dict[tuple[str, str], list[Answer]] = {}
        for key, asked in by_question(vote for vote in votes if not vote.raw.get("inferred")).items():
            sums = [self._overall, self._judges.setdefault(key.judge, _Sums())]
            sums += [self._principles.setdefault(name, _Sums()) for name in dict.fromkeys(key.principle_ids or ("",))]
            labels_of = [(vote, p_of(vote)) for vote in asked]
            slots = orders((vote, p) for vote, p in labels_of if p is not None)
            for each in sums:
                for vote, p in labels_of:
                    each.vote(vote, p, sides.get((key.comparison_id, key.axis), 0))
                if len(slots) == 2:
                    each.both += 1
                    each.flips += slots["ab"] * slots["ba"] < 0
            found = answer(key, asked, self._rule)
            if found is not None and found.weight > 0:
                said.setdefault((key.comparison_id, key.axis), []).append(found)
        for answers in said.values():
            judged = by_judge(answers)
            if len(judged) > 1:
                self._panels += 1
                self._bits += disagreement([each.p for each in judged])

    def report(self) -> VoteReport:
        """The statistics so far; names in alphabetical order."""
        return VoteReport(
            overall=self._overall.stats(),
            by_judge={name: sums.stats() for name, sums in sorted(self._judges.items())},
            by_principle={name: sums.stats() for name, sums in sorted(self._principles.items())},
            panels=self._panels,
            disagreement=self._bits / self._panels if self._panels else None,
        )


def vote_report(groups: Iterable[tuple[Group, Sequence[Vote], Sequence[Preference]]]) -> VoteReport:
    """The statistics over groups with their votes and labels."""
    tally = VoteTally()
    for group, votes, labels in groups:
        tally.add(group, votes, labels)
    return tally.report()
