"""What differs between two constitutions, by what an editor would call it: reworded, re-weighted, re-levelled, ..."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cai.constitution.load import Constitution
from cai.constitution.words import WORD
from cai.constitution.writing import plain

WORDING = ("title", "asks", "critique", "revision", "judge", "axis", "tags", "examples", "notes", "version")
ABOUT = {"title", "description", "version"}
"""What a constitution says of itself; no model sees it."""


@dataclass(frozen=True)
class Change:
    """A value before and after; None where there was or is none."""

    old: Any
    new: Any


@dataclass(frozen=True)
class Diff:
    """What changed from `old` to `new` (names of constitutions).

    Attributes:
        added, removed: ids of principles.
        reworded: id -> changed field -> change, of principles in both.
        reweighted, relevelled: id -> change.
        about: field of `ABOUT` -> change.
        reordered: the principles in both stand in another order.
        levels: the levels themselves changed.
        few_shot: index -> change.
        templates: `critique` or `revision` -> change.
    """

    old: str
    new: str
    about: Mapping[str, Change]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    reworded: Mapping[str, Mapping[str, Change]]
    reweighted: Mapping[str, Change]
    relevelled: Mapping[str, Change]
    reordered: bool
    levels: Change | None
    few_shot: Mapping[int, Change]
    templates: Mapping[str, Change]
    system_prompt: Change | None

    @property
    def same(self) -> bool:
        """Nothing differs but, perhaps, the name, and what an import keeps for the export (`source`)."""
        return not any(value for key, value in vars(self).items() if key not in ("old", "new"))

    def row(self) -> dict[str, Any]:
        """As a JSON object; what is keyed by id or index becomes a list of objects with that key."""

        def listed(key: str, changes: Mapping[Any, Change]) -> list[dict[str, Any]]:
            return [{key: name, **asdict(change)} for name, change in changes.items()]

        return {
            "old": self.old,
            "new": self.new,
            "same": self.same,
            "about": {field: asdict(change) for field, change in self.about.items()},
            "added": list(self.added),
            "removed": list(self.removed),
            "reworded": [
                {"id": name, "fields": {field: asdict(change) for field, change in fields.items()}}
                for name, fields in self.reworded.items()
            ],
            "reweighted": listed("id", self.reweighted),
            "relevelled": listed("id", self.relevelled),
            "reordered": self.reordered,
            "levels": asdict(self.levels) if self.levels else None,
            "few_shot": listed("index", self.few_shot),
            "templates": {field: asdict(change) for field, change in self.templates.items()},
            "system_prompt": asdict(self.system_prompt) if self.system_prompt else None,
        }


def diff(old: Constitution, new: Constitution) -> Diff:
    """Compare two constitutions; principles are matched by id."""
    before, after = ({b.id: b for b in c.principles} for c in (old, new))
    both = [name for name in before if name in after]
    reworded = {
        name: _changes(
            before[name].principle.model_dump(mode="json", include=set(WORDING)),
            after[name].principle.model_dump(mode="json", include=set(WORDING)),
        )
        for name in both
    }
    shots = [[plain(shot) for shot in c.few_shot] for c in (old, new)]
    levels = Change(*([level.model_dump(mode="json") for level in c.levels] for c in (old, new)))
    return Diff(
        old=old.name,
        new=new.name,
        about=_changes(*(c.file.model_dump(mode="json", include=ABOUT) for c in (old, new))),
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        reworded={name: fields for name, fields in reworded.items() if fields},
        reweighted=_changes({n: before[n].weight for n in both}, {n: after[n].weight for n in both}),
        relevelled=_changes({n: before[n].level.name for n in both}, {n: after[n].level.name for n in both}),
        reordered=both != [name for name in after if name in before],
        levels=levels if levels.old != levels.new else None,
        few_shot=_changes(*(dict(enumerate(each)) for each in shots)),
        templates=_changes(old.templates.model_dump(), new.templates.model_dump()),
        system_prompt=Change(old.system_prompt, new.system_prompt) if old.system_prompt != new.system_prompt else None,
    )


def _changes(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> dict[Any, Change]:
    keys = [*old, *(key for key in new if key not in old)]
    return {key: Change(old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def word_diff(old: str, new: str) -> list[tuple[Literal["same", "old", "new"], str]]:
    """The two texts as one, in runs of words: common, only in `old`, only in `new`.

    Joining the `same` and `old` runs gives `old`, joining the `same` and `new` runs gives `new`.
    """
    before, after = (re.findall(rf"\s+|{WORD}|[^\w\s]", text) for text in (old, new))
    runs: list[tuple[Literal["same", "old", "new"], str]] = []
    for op, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if op == "equal":
            runs.append(("same", "".join(before[i:j])))
        else:
            runs += [("old", "".join(before[i:j]))] if i < j else []
            runs += [("new", "".join(after[k:m]))] if k < m else []
    return runs
