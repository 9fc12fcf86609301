"""Tables that the commands print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def show_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """What happened in a run, and where its files are; on stdout."""
    console = Console()
    revise, sft = metrics["revise"], metrics["sft"]
    table = Table(title="What happened, round by round", title_justify="left")
    for name in ("step", "answers", "clean", "refusals", "mean words", "what was wrong (answers flagged)"):
        table.add_column(name, justify="left" if name.startswith(("step", "what")) else "right")
    for number, told in revise["rounds"].items():
        flags = ", ".join(f"{flag} {count}" for flag, count in told["flags"].items() if flag != "refusal") or "-"
        step = "draft" if number == "0" else f"revision {number}"
        cells = (told["responses"], told["clean"], told["refusals"], f"{told['mean_words']:.0f}")
        table.add_row(step, *(str(cell) for cell in cells), flags)
    console.print(table)
    quarantined = ", ".join(f"{reason} {count}" for reason, count in revise["quarantined"].items()) or "none"
    before = revise["refusals_before_and_after"]
    splits = ", ".join(f"{split} {count}" for split, count in sft["by_split"].items()) or "none"
    kinds = ", ".join(f"{kind} {count}" for kind, count in sft["by_kind"].items())
    lines = (
        ("prompts", f"{revise['prompts']}, quarantined: {quarantined}"),
        ("tokens", f"{revise['tokens']:,} generated"),
        (
            "refusals",
            f"{before['draft']} before, {before['last_clean_revision']} after, in {before['prompts']} revised prompts",
        ),
        ("SFT rows", f"{sft['rows']} ({splits}; {kinds})"),
        ("data set", f"{folder / 'sft'}  (README.md is its card)"),
        ("every step", f"{folder / 'responses.jsonl'}"),
        ("left out", f"{folder / 'quarantine.jsonl'}"),
        ("one row's story", f"cai why {folder} ID"),
    )
    facts = Table.grid(padding=(0, 2))
    for name, text in lines:
        facts.add_row(name, text)
    console.print(facts, soft_wrap=True)


def show_status(found: Sequence[Mapping[str, Any]]) -> None:
    """One line a run."""
    table = Table()
    for name in ("run", "done", "quarantined", "left", "SFT rows", "attempts", "last attempt"):
        table.add_column(name, justify="left" if name in ("run", "last attempt") else "right")
    for run in found:
        rows, attempts = run["stages"]["revise"], run["attempts"]
        sft = run["stages"]["export"]["rows"]
        last = (
            f"{attempts[-1]['ended']}, {attempts[-1]['tokens_per_second']:,.0f} tok/s"
            if attempts
            else "running or killed"
        )
        cells = (rows["done"], rows["quarantined"], rows["left"], sum(sft.values()) if sft else "-", len(attempts))
        table.add_row(run["run"], *(str(cell) for cell in cells), last)
    Console().print(table)
