"""A pair judge that asks only some pairs of a group, with Bradley-Terry strengths for the others.

`round_robin` asks every pair. `swiss` asks, in each round, neighbours of the standing so far: about K/2 pairs a round,
and the pairs that decide between the best come up by themselves.

What is honest about a pair that was never asked? Asked pairs keep the pair judge's own votes, under its own name; they
are not smoothed towards the fit. A pair never asked gets one vote by `tournament`, without an order and with `inferred`
in `raw`: what the strengths, fitted to the group's other verdicts, say of it. It adds no evidence, only spreads what
there is; whoever counts evidence leaves such votes out, as `cai.stages.prefer.rankings` does. Two answers that no chain
of verdicts links get a vote with an error instead. A pair whose asking failed, be it in one order of two, keeps that
failure, and counts in no standing and no strength: the verdict left over would carry the judge's whole position bias.
What the pair judge says is to be done with a label (`raw["clamp"]`) holds for the inferred ones too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from cai.engine import Generate
from cai.errors import InputError
from cai.judging import UNCONNECTED, Judge, Question, Verdict, judge_id, vote
from cai.judging.members import Inner
from cai.judging.ranking import PRIOR, Game, bradley_terry, expected, games_of
from cai.records import Comparison, Group, Vote, content_hash
from cai.scheduler import together
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the tournament."""

    judge: Inner = Field(Inner(method="logprob"), description="The pair judge: its method, and the method's options.")
    schedule: Literal["round_robin", "swiss"] = Field("swiss", description="Which pairs are asked.")
    rounds: int | None = Field(
        None, ge=1, description="Of a swiss tournament; by default the logarithm of K to base 2, rounded up, and one."
    )
    prior: float = Field(PRIOR, gt=0, description="Standard deviation of a strength before any verdict, in logits.")

    @model_validator(mode="after")
    def _rounds(self) -> Config:
        if self.schedule == "round_robin" and self.rounds is not None:
            raise ValueError("rounds are of a swiss schedule; round_robin asks every pair")
        return self


@dataclass(frozen=True)
class Tournament:
    """See `cai.judging.Judge`. `cai.stages.prefer.rankings` gives the order of the whole group."""

    config: Config
    inner: Judge
    id: str
    kind: str
    name: str = "tournament"
    unit: str = "group"

    @property
    def depends_on_group(self) -> bool:
        return self.config.schedule == "swiss"  # else every pair is asked, and nothing is inferred

    async def __call__(self, item: Group, question: Question, generate: Generate) -> tuple[Vote, ...]:
        pairs = {frozenset((each.a.id, each.b.id)): each for each in item.comparisons()}
        votes: dict[str, tuple[Vote, ...]] = {}
        if self.config.schedule == "round_robin":
            await self._ask(list(pairs.values()), question, generate, votes)
        else:
            # Not the order in which they were written: the first are often the drafts.
            seeded = [c.id for c in sorted(item.candidates, key=lambda c: content_hash(item.id, c.id))]
            for _ in range(self.config.rounds or rounds(len(seeded))):
                played = {key for key, each in pairs.items() if each.id in votes}
                paired = swiss(standing(seeded, pairs, votes), played)
                if not paired:
                    break
                await self._ask([pairs[key] for key in paired], question, generate, votes)
        games = games_of(item, {pair: p for pair, asked in votes.items() if (p := label(asked)) is not None})
        strengths = bradley_terry(len(item.candidates), games, prior=self.config.prior)
        linked = parts(len(item.candidates), games)
        place = {candidate.id: index for index, candidate in enumerate(item.candidates)}
        told = (each.raw for asked in votes.values() for each in asked)
        clamp = next(({"clamp": raw["clamp"]} for raw in told if "clamp" in raw), {})
        given: list[Vote] = []
        for pair in item.comparisons():
            if pair.id in votes:
                given += votes[pair.id]
                continue
            a, b = place[pair.a.id], place[pair.b.id]
            raw = {"inferred": True, "games": len(games), "strengths": [strengths[a], strengths[b]], **clamp}
            verdict = Verdict(None, raw=raw, error=UNCONNECTED)
            if linked[a] == linked[b]:
                verdict = Verdict(expected(strengths[a], strengths[b]), raw=raw)
            given.append(vote(pair, verdict, self, question, ordered=False))
        return tuple(given)

    async def _ask(
        self, pairs: Sequence[Comparison], question: Question, generate: Generate, votes: dict[str, tuple[Vote, ...]]
    ) -> None:
        told = await together(self.inner(pair, question, generate) for pair in pairs)
        votes.update(zip((pair.id for pair in pairs), told, strict=True))


def rounds(count: int) -> int:
    """Of a swiss tournament of `count` answers: enough to find the best by knock-out, and one."""
    return math.ceil(math.log2(count)) + 1


def standing(
    ids: Sequence[str], pairs: Mapping[frozenset[str], Comparison], votes: Mapping[str, Sequence[Vote]]
) -> list[str]:
    """`ids`, those with the highest sum of soft labels first; equals keep their order.

    A bye, and a pair without a verdict, or with one in only one of two orders, count half.
    """
    score = dict.fromkeys(ids, 0.0)
    for each in pairs.values():
        p = label(votes.get(each.id, ()))
        if p is not None:
            score[each.a.id] += p - 0.5
            score[each.b.id] -= p - 0.5
    return sorted(ids, key=lambda each: -round(score[each], 9))


def label(votes: Sequence[Vote]) -> float | None:
    """The soft label of one pair's votes; None where there are none, or one of them has no verdict."""
    found = [vote.p for vote in votes]
    known = [p for p in found if p is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(found) else None


def swiss(order: Sequence[str], played: set[frozenset[str]]) -> list[frozenset[str]]:
    """The pairs of the next round: from the top, each with the nearest below that it has not met; who finds none rests.

    None where all have met.
    """
    waiting, paired = list(order), []
    while waiting:
        one = waiting.pop(0)
        other = next((each for each in waiting if frozenset((one, each)) not in played), None)
        if other is not None:
            waiting.remove(other)
            paired.append(frozenset((one, other)))
    return paired


def parts(count: int, games: Sequence[Game]) -> list[int]:
    """For each answer the smallest index among those that a chain of games links to it."""
    part = list(range(count))
    for i, j, _ in games:
        low, high = sorted((part[i], part[j]))
        part = [low if each == high else each for each in part]
    return part


def build(config: Config, *, models: Mapping[str, str], seed: int) -> Tournament:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; for the pair judge.

    Raises:
        InputError: the inner judge is not a single pair judge, or its prompt file is missing or wrong.
    """
    inner = config.judge.build(models, seed)
    if inner.unit != "pair" or config.judge.method == "panel":
        raise InputError(
            f"{config.judge.method!r} cannot play a tournament: it needs one judge of pairs",
            mend="use logprob or cot; a panel can have tournaments as members",
        )
    own, kind = (judge_id("tournament", config, None, [each], exclude=["judge"]) for each in (inner.id, inner.kind))
    return Tournament(config, inner, own, kind)
