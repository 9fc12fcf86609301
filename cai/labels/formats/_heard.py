"""What one person said in one sitting of a tool that asks several questions, gathered into a verdict an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cai.errors import InputError
from cai.labels.formats._named import SIDES, Named, named
from cai.labels.said import WORDS, agreed, as_number, as_text, from_strength, seven, word


@dataclass
class Heard:
    """Answers as they are met, by axis."""

    verdict: dict[str, tuple[str, str]] = field(default_factory=dict)
    strength: dict[str, int] = field(default_factory=dict)
    ratings: dict[str, dict[str, float]] = field(default_factory=dict)
    edit: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def hear(self, name: str, value: Any, *, side: str = "") -> None:
        """One answer to the question `name`.

        Args:
            side: the answer that it is about, where the tool says so elsewhere.

        Raises:
            InputError: the question is known by its name, and this is no answer to it; or two questions on one axis
                have different answers.
        """
        asked = named(name)
        if asked.kind == "note":
            self.notes += [as_text(each, name) for each in value] if isinstance(value, list) else [as_text(value, name)]
        elif asked.kind == "edit":
            told = value[0] if isinstance(value, list) and value else value
            self.edit[asked.axis] = "" if told == [] else as_text(told, name)
        elif asked.kind == "strength":
            strength = seven(value)
            if strength is not None:
                self.strength[asked.axis] = strength
        elif asked.kind == "verdict":
            self._decide(name, asked.axis, word(value))
        elif asked.side or side:
            self._rate(name, asked, side, value)
        elif not asked.kind and isinstance(value, str) and value.strip().lower() in set(WORDS) - {""}:
            self._decide(name, asked.axis, word(value))  # a question that is called by its axis alone
        else:
            self.unknown.append(name or "without a name")

    def rank(self, name: str, best_first: Sequence[Any]) -> None:
        """A ranking of the two answers.

        Raises:
            InputError: another question on the axis was answered otherwise.
        """
        sides = [SIDES.get(str(each).strip().lower(), "") for each in best_first]
        if sorted(sides) == ["left", "right"]:
            self._decide(name, named(name).axis, sides[0])
        else:
            self.unknown.append(name or "ranking")

    def _decide(self, name: str, axis: str, verdict: str) -> None:
        before = self.verdict.get(axis)
        if before is not None and before[1] != verdict:
            raise InputError(f"{before[0] or 'one part'} says {before[1]}, {name or 'another'} says {verdict}")
        self.verdict[axis] = (name, verdict)

    def _rate(self, name: str, asked: Named, side: str, value: Any) -> None:
        self.ratings.setdefault(asked.axis, {})[asked.side or side] = as_number(value, name)

    def told(self) -> dict[str, tuple[str, int | None, str]]:
        """Verdict, strength and edit by axis, ratings of both answers being a verdict where nothing else is one.

        Raises:
            InputError: verdict and strength contradict one another, or nothing of what there is can be read.
        """
        found = {axis: verdict for axis, (_, verdict) in self.verdict.items()}
        for axis, rated in self.ratings.items():
            if axis not in found and len(rated) == 2:
                gap = rated["left"] - rated["right"]
                found[axis] = "left" if gap > 0 else "right" if gap < 0 else "tie"
            elif axis not in found:
                self.unknown.append(f"a rating of the {next(iter(rated))} answer alone")
        for axis, strength in self.strength.items():
            found.setdefault(axis, from_strength(strength))
        if self.unknown and not found:
            raise InputError(f"says nothing readable: {', '.join(sorted(set(self.unknown)))[:80]}")
        if not found:
            found = {"": "abstain"}  # asked, and left open
        return {
            axis: (verdict, agreed(verdict, self.strength.get(axis)), self.edit.get(axis, ""))
            for axis, verdict in found.items()
        }

    @property
    def note(self) -> str:
        return "\n".join(each for each in self.notes if each)
