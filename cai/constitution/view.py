"""Constitutions and their differences as a person reads them in a terminal, and as scripts read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from cai.constitution.diff import Change, Diff, word_diff
from cai.constitution.load import Constitution, called
from cai.constitution.writing import dump


def summary(constitution: Constitution) -> dict[str, Any]:
    """What `cai constitution show --json` prints; scripts rely on exactly these keys."""
    return {
        "name": constitution.name,
        "principles": [
            {
                "id": b.id,
                "axis": b.principle.axis,
                "level": b.level.name,
                "weight": b.weight,
                "critique": b.principle.critique,
                "revision": b.principle.revision,
                "judge": b.principle.judge,
            }
            for b in constitution.principles
        ],
    }


def table(constitution: Constitution) -> Group:
    """The principles, one a row, with the chance that a draw picks each.

    Critiques draw among the principles with a critique request and judges among those with a question; where these
    are not the same principles there are two columns.
    """
    bounds = constitution.principles
    critiques = _shares({b.id: b.weight for b in bounds if b.principle.revises})
    verdicts = _shares({b.id: b.weight for b in bounds if b.principle.judge.strip()})
    shares = {"share of critiques": critiques, "share of verdicts": verdicts}
    if critiques == verdicts or not critiques or not verdicts:
        shares = {"share": critiques or verdicts}
    rows = Table(show_edge=False)
    for header in ("id", "title", "axis", "level"):
        rows.add_column(header, overflow="fold")  # an id that is cut off cannot be looked up
    for header in shares:
        rows.add_column(header, justify="right")
    rows.add_column("asks", ratio=1)
    for b in bounds:
        p = b.principle
        asks = " ".join((p.asks or p.critique or p.judge).split())
        chances = [chance.get(b.id, "") for chance in shares.values()]
        rows.add_row(*(Text(text) for text in (b.id, p.title, p.axis, b.level.name, *chances, asks)))
    title = constitution.file.title or constitution.name
    head = [Text(f"{title} ({constitution.path})", style="bold")]
    if found := Counter(called(b.folder) for b in bounds if b.folder):
        head.append(Text(f"principles: {', '.join(f'{count} from {place}' for place, count in found.items())}"))
    return Group(*head, Text(), rows)


def _shares(weights: Mapping[str, float]) -> dict[str, str]:
    total = sum(weights.values())
    return {name: f"{weight / total:.1%}" if weight else "off" for name, weight in weights.items()}


def difference(changes: Diff) -> Group:
    """A diff, a change a line; texts word by word, with `[-old-]` and `{+new+}` also where there is no colour."""
    return Group(*_lines(changes))


def _lines(changes: Diff) -> Iterator[Text]:
    if changes.same:
        yield Text("no differences")
    yield from _texts("changed", changes.about)
    for style, what, ids in (("green", "added", changes.added), ("red", "removed", changes.removed)):
        for name in ids:
            yield Text(f"{what} {name}", style=style)
    for what, each in (("re-weighted", changes.reweighted), ("re-levelled", changes.relevelled)):
        for name, change in each.items():
            yield Text(f"{what} {name}: {change.old} -> {change.new}")
    if changes.reordered:
        yield Text("the principles stand in another order")
    for name, fields in changes.reworded.items():
        yield from _texts(f"reworded {name}", fields)
    whole: dict[str, Change | None] = {"levels": changes.levels, "system_prompt": changes.system_prompt}
    yield from _texts("changed", {field: change for field, change in whole.items() if change})
    yield from _texts("changed templates", changes.templates)
    for index, change in changes.few_shot.items():
        yield from _texts("changed", {f"few-shot example {index}": change})


def _texts(what: str, fields: Mapping[str, Change]) -> Iterator[Text]:
    for field, change in fields.items():
        line = Text(f"{what}, {field}: ")
        for kind, run in word_diff(_plain(change.old), _plain(change.new)):
            marked = {"same": run, "old": f"[-{run}-]", "new": f"{{+{run}+}}"}[kind]
            line.append(marked, style={"same": "", "old": "red", "new": "green"}[kind])
        yield line


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return dump(value) if isinstance(value, list | dict) else str(value)
