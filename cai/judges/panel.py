"""Several judges on the same comparisons; each member's votes are kept, under the member's name.

The panel decides nothing: what its members' votes come to is a pure function of them, by `rule`
(`cai.judging.panels.combine`), where votes are aggregated, and can be decided anew by another rule without asking a
model. Whoever aggregates groups the votes by `judge`, since several votes of one member (orders, shifts) are no
independent witnesses, and takes the rule from the panel's attribute `rule` or from its own options.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, field_validator

from cai.engine import Generate
from cai.errors import InputError
from cai.judging import Judge, Question, depends_on_group, judge_id, most_answers, sees_one
from cai.judging.members import Member
from cai.judging.panels import Rule
from cai.records import Comparison, Group, Vote
from cai.scheduler import together
from cai.yamlfile import StrictModel


class Config(StrictModel):
    """Options of the panel."""

    members: tuple[Member, ...] = Field(min_length=2, description="Each: method, name, and the method's options.")
    rule: Rule = Field("mean", description="How the members' soft labels become one, where votes are aggregated.")

    @field_validator("members")
    @classmethod
    def _names(cls, value: tuple[Member, ...]) -> tuple[Member, ...]:
        labels = [member.label for member in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two members are called {label!r}; give each a name of its own")
        if any(member.method == "panel" for member in value):
            raise ValueError("a panel cannot be a member of a panel; list its members here")
        return value


@dataclass(frozen=True)
class Panel:
    """See `cai.judging.Judge`. A panel with a member that takes groups takes groups; its other members are then asked
    about each comparison of the group."""

    members: tuple[tuple[str, Judge], ...]
    rule: Rule
    id: str
    kind: str
    unit: str
    name: str = "panel"

    @property
    def depends_on_group(self) -> bool:
        return any(depends_on_group(judge) for _, judge in self.members)

    @property
    def sees_one(self) -> bool:
        return any(sees_one(judge) for _, judge in self.members)

    @property
    def most_answers(self) -> int | None:
        return min((most for _, judge in self.members if (most := most_answers(judge)) is not None), default=None)

    async def __call__(self, item: Comparison | Group, question: Question, generate: Generate) -> tuple[Vote, ...]:
        asked = [
            (label, judge, each)
            for label, judge in self.members
            for each in (item.comparisons() if isinstance(item, Group) and judge.unit == "pair" else (item,))
        ]
        told = await together(judge(each, question, generate) for _, judge, each in asked)
        return tuple(
            dataclasses.replace(vote, judge=label)
            for (label, _, _), votes in zip(asked, told, strict=True)
            for vote in votes
        )


def build(config: Config, *, models: Mapping[str, str], seed: int) -> Panel:
    """The judge.

    Args:
        models: fingerprints by role.
        seed: of the run; for the members.

    Raises:
        InputError: two members are the same judge, or a member's prompt file is missing or wrong.
    """
    members = tuple((member.label, member.build(models, seed)) for member in config.members)
    seen: dict[str, str] = {}
    for label, judge in members:
        # A tournament's votes are its pair judge's: the same verdicts under two names would count twice.
        key = getattr(judge, "inner", judge).id
        if key in seen:
            raise InputError(f"the members {seen[key]!r} and {label!r} are the same judge", where="panel")
        seen[key] = label
    unit = "group" if any(judge.unit == "group" for _, judge in members) else "pair"
    # The rule changes no vote; a calibration, which it does concern, names it beside the judge.
    ids = [f"{label} {judge.id}" for label, judge in members]
    kinds = [f"{label} {judge.kind}" for label, judge in members]
    own, kind = (judge_id("panel", config, None, each, exclude=["members", "rule"]) for each in (ids, kinds))
    return Panel(members, config.rule, own, kind, unit)
