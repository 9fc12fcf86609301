"""From votes to preferences: one soft label for each comparison and axis.

The steps, all of them pure:

1. A vote with an error is missing. It is never 0.5: that would be a verdict nobody gave.
2. The votes of one question (judge, principles, axis) are averaged, over both orders (Lee et al. 2023, arXiv
   2309.00267, section 2.1), so what a judge gives to a slot cancels. If one order has no verdict, the question is
   missing (`need_both`): half of such a pair would carry the whole bias. The votes of a listwise judge's rotations are
   averaged in log-odds, logit p = mean of logit p_r: a place's bias is added to a logit, and over all rotations it adds
   up to nothing (`cai.judges.listwise`). If one rotation has no verdict, the question is missing too, since only all of
   them together put each answer into each place equally often.
3. A judge's questions are averaged by the weights of their principles; one of weight 0 is not asked. Then the label is
   clamped where the judge says so (chain of thought: Bai et al. 2022, section 4.1). Clamped before orders or questions
   are averaged, two sure verdicts that contradict one another a little would come to exactly 0.5.
4. The judges are combined by the panel's rule (`cai.judging.panels`); log-odds are averaged, never summed, since
   judges are not independent.
5. What comes out is calibrated, where a calibration was fitted to this judge (`cai.evals.calibration`). What a
   tournament inferred is not: it is no verdict of the judge, and the strengths' prior has drawn it in already.
6. Axes never merge: a comparison gives one preference for each.
7. Below 0.5, chosen and rejected change places.

Nothing depends on the order of the votes: sums are exact (`fsum`) and probabilities are rounded to 12 places, so that
two halves are a half.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cai.errors import InputError
from cai.judging import panels
from cai.judging.ranking import ranking
from cai.records import (
    PLACES,
    Comparison,
    Group,
    Preference,
    Vote,
    content_hash,
    margin_of,
    tie_is_likeliest,
    verdict_of,
)

_SUREST = math.log(10**PLACES)
"""Log-odds beyond which a label of so many places is 0 or 1: one rotation counts no more, however sure it is."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How votes become a label.

    Attributes:
        panel: how the judges are combined, see `cai.judging.panels.combine`.
        need_both: a question that was asked in both orders needs a verdict each time (each rotation of a list).
        tie_band: a label nearer to 0.5 than this is a tie (`status`), and keeps its probability; so is one of which a
            tie is the likeliest, whatever the band.
        slope, offset: of the judge's calibration, logit p' = slope * logit p + offset; 1 and 0 leave p as it is.

    Raises:
        InputError: another word for `panel`, a band outside 0 to 0.5, or a slope that would turn verdicts round.
    """

    panel: panels.Rule = "mean"
    need_both: bool = True
    tie_band: float = 0.0
    slope: float = 1.0
    offset: float = 0.0

    def __post_init__(self) -> None:
        if self.panel not in panels.RULES:
            raise InputError(f"must be one of {', '.join(panels.RULES)}", where="panel")
        if not 0 <= self.tie_band <= 0.5:
            raise InputError(f"must be between 0 and 0.5, not {self.tie_band}", where="tie_band")
        if not (0 < self.slope < math.inf and math.isfinite(self.offset)):
            raise InputError(f"the slope must be above 0, not {self.slope}", where="calibration")

    def calibrated(self, p: float) -> float:
        """A combined label as the calibration says it."""
        if self.slope == 1 and self.offset == 0:
            return p
        held = min(max(p, panels.SUREST), 1 - panels.SUREST)
        return 1 / (1 + math.exp(-(self.slope * (math.log(held) - math.log1p(-held)) + self.offset)))


@dataclass(frozen=True, slots=True)
class QuestionKey:
    """What makes votes on a comparison answers to the same question."""

    comparison_id: str
    axis: str
    judge: str
    judge_id: str
    principle_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question on one comparison came to, over its orders.

    Attributes:
        p: probability that the comparison's own `a` is better, a tie counting half.
        flipped: whether the orders gave opposite verdicts; None unless there are verdicts in both.
        clamp: into what the judge's label is held, as its votes say (`raw["clamp"]`).
    """

    key: QuestionKey
    p: float
    p_tie: float
    weight: float
    flipped: bool | None
    clamp: tuple[float, float] | None = None


def preferences(
    group: Group, votes: Iterable[Vote], rule: Rule, *, axes: Sequence[str] | None = None
) -> tuple[Preference, ...]:
    """The preferences of a group: for each axis, in the order of their names, one for each of its C(K, 2) comparisons.

    `weight` is 1 / C(K, 2) whatever the votes came to (InstructGPT, arXiv 2203.02155, section 3.5), so it depends on
    the group only: a group in which verdicts are missing counts for the share that it has.

    Args:
        votes: those on this group's comparisons, in any order; one given twice (same id) counts once.
        axes: those that were asked about. Default: those of the votes, or the judges' own ("") where there are none.

    Raises:
        InputError: a vote on another comparison or axis, or with a malformed probability; or two answers are the same.
    """
    comparisons = group.comparisons()
    for comparison in comparisons:
        if comparison.a.text == comparison.b.text:
            raise InputError("two of its answers have the same text", where=f"prompt {group.prompt.id}")
    known = {vote.id: vote for vote in votes}
    asked = sorted(set(axes) if axes is not None else {vote.axis for vote in known.values()} or {""})
    sorted_out: dict[tuple[str, str], list[Vote]] = {(c.id, axis): [] for axis in asked for c in comparisons}
    for vote in sorted(known.values(), key=lambda vote: vote.id):
        where = (vote.comparison_id, vote.axis)
        if where not in sorted_out:
            raise InputError(f"is on comparison {where[0]}, axis {where[1]!r}, not on this group", where=vote.id)
        sorted_out[where].append(vote)
    weight = 1 / len(comparisons)
    return tuple(
        _preference(comparison, axis, sorted_out[comparison.id, axis], rule, weight)
        for axis in asked
        for comparison in comparisons
    )


def by_question(votes: Iterable[Vote]) -> Mapping[QuestionKey, Sequence[Vote]]:
    """The votes of each question, those without a verdict too; one given twice counts once."""
    found: dict[QuestionKey, list[Vote]] = {}
    for vote in {vote.id: vote for vote in votes}.values():
        key = QuestionKey(vote.comparison_id, vote.axis, vote.judge, vote.judge_id, vote.principle_ids)
        found.setdefault(key, []).append(vote)
    return found


def rankings(group: Group, votes: Iterable[Vote], labels: Iterable[Preference]) -> dict[str, tuple[str, ...]]:
    """Ids of a group's answers, the best first, by each axis that its votes are of.

    Made of the group's preferences, so neither contradicts the other; those that a tournament inferred from the others
    say nothing new, and are left out.

    Args:
        votes: those that the preferences came of.
        labels: the group's, as `preferences` gave them.
    """
    votes = list(votes)
    asked = {
        (vote.comparison_id, vote.axis) for vote in votes if p_of(vote) is not None and not vote.raw.get("inferred")
    }
    pairs = {comparison.id: comparison for comparison in group.comparisons()}
    told: dict[str, dict[str, float]] = {axis: {} for axis in sorted({vote.axis for vote in votes})}
    for label in labels:
        p = p_of_a(label, pairs[label.comparison_id])
        if p is not None and (label.comparison_id, label.axis) in asked:
            told[label.axis][label.comparison_id] = p
    return {axis: ranking(group, found) for axis, found in told.items()}


def p_of_a(label: Preference, comparison: Comparison) -> float | None:
    """The soft label of the comparison's own `a`; None where there is no verdict."""
    if label.p is None:
        return None
    return label.p if label.chosen_id == comparison.a.id else 1 - label.p


def p_of(vote: Vote) -> float | None:
    """The soft label of a vote, or None where it has no verdict.

    Raises:
        InputError: not a probability.
    """
    if vote.error is not None or vote.p_a is None:
        return None
    p = vote.p_a + vote.p_tie / 2
    if not (0 <= vote.p_a <= 1 and 0 <= vote.p_tie <= 1 and p <= 1 + 1e-9):
        raise InputError(f"p_a {vote.p_a} with p_tie {vote.p_tie} is not a probability", where=f"vote {vote.id}")
    return round(min(p, 1.0), PLACES)


def side(p: float) -> int:
    """1 where `a` is better, -1 where `b` is, 0 where neither."""
    return (p > 0.5) - (p < 0.5)


def answer(key: QuestionKey, votes: Sequence[Vote], rule: Rule) -> Answer | None:
    """What a question's votes come to; None where it is missing."""
    labels = [(vote, p) for vote in votes if (p := p_of(vote)) is not None]
    sides = orders(labels)
    both_asked = {"ab", "ba"} <= {vote.order for vote in votes}
    if not labels or (both_asked and rule.need_both and len(labels) < len(votes)):
        return None
    return Answer(
        key=key,
        # All votes alike: a listwise judge's are free of a preference for a place only so, and a pair judge's are one
        # in each order.
        p=_averaged(labels),
        p_tie=_mean([vote.p_tie for vote, _ in labels]),
        weight=_mean([vote.weight for vote, _ in labels]),
        flipped=sides["ab"] * sides["ba"] < 0 if len(sides) == 2 else None,
        clamp=next((tuple(vote.raw["clamp"]) for vote, _ in labels if vote.raw.get("clamp")), None),
    )


def orders(labels: Iterable[tuple[Vote, float]]) -> dict[str, int]:
    """The side on which the verdicts of one question fall in each of the two orders that has any."""
    found: dict[str, list[tuple[Vote, float]]] = {}
    for vote, p in labels:
        found.setdefault(vote.order, []).append((vote, p))
    return {order: side(_averaged(found[order])) for order in ("ab", "ba") if order in found}


def _averaged(labels: Sequence[tuple[Vote, float]]) -> float:
    """The mean label of one question's votes: of rotations, the label of the mean log-odds."""
    odds = [_log_odds(vote) for vote, _ in labels]
    known = [each for each in odds if each is not None]
    if len(known) < len(labels):
        return round(_mean([p for _, p in labels]), PLACES)
    return round(0.5 * (1 + math.tanh(_mean(known) / 2)), PLACES)  # the logistic function


def _log_odds(vote: Vote) -> float | None:
    """Of a against b as a rotation of a list told them, exact where `p_a` is rounded; None of any other vote."""
    if "rotation" not in vote.raw:
        return None
    a, b = vote.raw["logprobs"]
    odds: float = a - b
    return min(max(odds, -_SUREST), _SUREST)


def _preference(comparison: Comparison, axis: str, votes: Sequence[Vote], rule: Rule, weight: float) -> Preference:
    # What a tournament inferred stands in where nothing was asked; beside a real verdict it says nothing new.
    real = [vote for vote in votes if not vote.raw.get("inferred")]
    used = real if any(p_of(vote) is not None for vote in real) else votes
    found = [answer(key, asked, rule) for key, asked in by_question(used).items()]
    answers = [each for each in found if each is not None and each.weight > 0]
    # Each principle may have played a tournament of its own; one whose verdict did not count says nothing of this row.
    counted = [each.key.principle_ids for each in answers] or [vote.principle_ids for vote in votes]
    judged = by_judge(answers)
    p_a = None
    if judged:
        combined = panels.combine([each.p for each in judged], rule.panel)
        p_a = round(rule.calibrated(combined) if used is real else combined, PLACES)
    p_tie, tied = 0.0, False
    swap = p_a is not None and p_a < 0.5
    p = None if p_a is None else round(max(p_a, 1 - p_a), PLACES)
    if p is not None:
        # Rules other than the mean move p, but can leave to a tie at most what p leaves room for.
        ties = _mean([each.p_tie for each in judged])
        p_tie = round(min(ties, 2 * (1 - p)), PLACES)
        tied = tie_is_likeliest(_mean([each.said for each in judged]), ties)
    chosen, rejected = (comparison.b, comparison.a) if swap else (comparison.a, comparison.b)
    both = [each.flipped for each in answers if each.flipped is not None]
    return Preference(
        id=content_hash(comparison.id, axis, dataclasses.asdict(rule)),
        comparison_id=comparison.id,
        group_id=comparison.group_id,
        prompt_id=comparison.prompt.id,
        messages=comparison.prompt.messages,
        chosen=chosen.text,
        rejected=rejected.text,
        chosen_id=chosen.id,
        rejected_id=rejected.id,
        p=p,
        p_tie=p_tie,
        margin=margin_of(p),
        agreement=_mean([0.5 + side(a.p) * (-0.5 if swap else 0.5) for a in answers]) if answers else 0.0,
        flipped=sum(both) / len(both) if both else 0.0,
        weight=weight,
        axis=axis,
        principle_ids=tuple(sorted({name for names in counted for name in names})),
        votes=tuple(vote.id for vote in votes),
        status="tie" if tied else verdict_of(p, 0.0, rule.tie_band),
        tags=comparison.prompt.tags,
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What one judge's questions came to, by their weights: `p` clamped where it says so, `said` as it was said."""

    p: float
    said: float
    p_tie: float


def by_judge(answers: Iterable[Answer]) -> list[Judged]:
    """What each judge said that gave an answer."""
    judges: dict[tuple[str, str], list[Answer]] = {}
    for each in answers:
        judges.setdefault((each.key.judge, each.key.judge_id), []).append(each)
    found = []
    for asked in judges.values():
        total = math.fsum(each.weight for each in asked)
        p = math.fsum(each.p * each.weight for each in asked) / total
        p_tie = math.fsum(each.p_tie * each.weight for each in asked) / total
        found.append(Judged(round(clamped(p, p_tie, asked[0].clamp), PLACES), p, p_tie))
    return found


def clamped(p: float, p_tie: float, clamp: tuple[float, float] | None) -> float:
    """The label with the share that is no tie held between the clamp's ends."""
    if clamp is None or p_tie >= 1:
        return p
    share = (p - p_tie / 2) / (1 - p_tie)
    return (1 - p_tie) * min(max(share, clamp[0]), clamp[1]) + p_tie / 2


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
