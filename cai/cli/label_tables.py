"""How far people agree, as tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MOST = 12
"""Rows of a table of people; all are in --json."""

COEFFICIENTS = (
    (("say the same", "observed"), ("alpha", "alpha_nominal"), ("ordinal alpha", "alpha_ordinal")),
    (("Fleiss' kappa", "fleiss_kappa"), ("Gwet's AC1", "ac1")),
)


def show_agreement(report: Mapping[str, Any]) -> None:
    """The report of `cai label agreement`, on stdout: axes and principles, each person, and people beside the judge."""
    console = Console()
    axes = {name or "overall": part for name, part in report.get("axes", {"": report}).items()}
    parts = axes | {f"principle {name}": part for name, part in report.get("principles", {}).items()}
    for number, shown in enumerate(COEFFICIENTS):
        counts = () if number == 0 else ("votes", "tasks", "people")
        table = _table("How far people agree (95 % intervals)" if number == 0 else "", "over", *counts, *dict(shown))
        for name, part in parts.items():
            told = [str(part["workers" if count == "people" else count]) for count in counts]
            table.add_row(Text(name), *told, *(_cell(part[key]) for _, key in shown))
        _print(console, table)
    for name, part in axes.items():
        _show_people(console, "" if list(axes) == ["overall"] else f", {name}", part)
    _show_gold(console, report.get("gold") or {})
    if report.get("beside_the_judge"):
        # The intervals of both shares are in --json: what a reader asks is whether they differ.
        title = "The AI judge beside people: agreement with a person's vote"
        table = _table(title, "over", "votes", "judge", "other people", "difference")
        for row in report["beside_the_judge"]:
            cells = (f"{row['judge']['mean']:.2f}", f"{row['people']['mean']:.2f}", _mean(row["difference"]))
            table.add_row(Text(row["over"]), str(row["n"]), *cells)
        _print(console, table)
    for kind, found in report.get("suspects", {}).items():
        for who, why in found.items():
            console.print(Text(f"look at {who} ({kind}): {why}", style="yellow"), soft_wrap=True)


def _show_people(console: Console, over: str, part: Mapping[str, Any]) -> None:
    rows = sorted(part["annotators"].items(), key=lambda row: (row[1]["reliability"], row[0]))
    table = _table(f"Each person beside the others{over}", "annotator", "votes", "agrees", "kappa", "reliability")
    for name, row in rows[:MOST]:
        cells = (_cell(row["agrees"]), _cell(row["kappa"]), f"{row['reliability']:.2f}")
        table.add_row(Text(name), str(row["votes"]), *cells)
    _with_rest(console, table, len(rows))
    pairs: Sequence[Mapping[str, Any]] = part["pairs"]
    if pairs:
        table = _table(
            f"Every two people, the lowest first{over}", "annotators", "tasks", "say the same", "Cohen's kappa"
        )
        for pair in pairs[:MOST]:
            cells = (str(pair["tasks"]), _cell(pair["observed"]), _cell(pair["cohen_kappa"]))
            table.add_row(Text(", ".join(pair["workers"])), *cells)
        _with_rest(console, table, len(pairs))


def _show_gold(console: Console, gold: Mapping[str, Any]) -> None:
    if gold:
        table = _table("On gold items, whose right verdict is known", "annotator", "items", "right")
        rows = sorted(gold.items(), key=lambda row: (row[1]["right"]["value"], row[0]))
        for name, row in rows[:MOST]:
            table.add_row(Text(name), str(row["n"]), _cell(row["right"]))
        _with_rest(console, table, len(rows))


def _table(title: str, first: str, *others: str) -> Table:
    """A table whose first column gives way to the figures, by folding its names, but never to nothing."""
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column(first, overflow="fold", min_width=9, max_width=30)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _with_rest(console: Console, table: Table, count: int) -> None:
    _print(console, table, f" {count - MOST} more in --json" if count > MOST else "")


def _print(console: Console, table: Table, below: str = "") -> None:
    console.print(table)
    console.print(below + "\n" if below else "")


def _cell(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    ends = f" [{found['ci'][0]:.2f} {found['ci'][1]:.2f}]" if found["ci"] else ""
    return f"{found['value']:.2f}{ends}"


def _mean(found: Mapping[str, Any]) -> str:
    return f"{found['mean']:+.2f} [{found['ci'][0]:+.2f} {found['ci'][1]:+.2f}]"
