"""Tables that the commands print."""

from __future__ import annotations

from collections import Counter
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
    unreadable = metrics.get("prompts", {}).get("unreadable", 0)
    before = revise["refusals_before_and_after"]
    splits = ", ".join(f"{split} {count}" for split, count in sft["by_split"].items()) or "none"
    kinds = ", ".join(f"{kind} {count}" for kind, count in sft["by_kind"].items())
    lines = (
        ("prompts", f"{revise['prompts']}, quarantined: {quarantined}"),
        *([("unreadable rows", str(unreadable))] if unreadable else []),
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


def show_preferences(folder: Path, metrics: Mapping[str, Any]) -> None:
    """What the judge said, how far it can be believed, and where the pairs are; on stdout."""
    console = Console()
    sample, votes, made = metrics["sample"], metrics["judge"], metrics["preferences"]
    table = Table(title="What the judge said, by principle", title_justify="left")
    for name in ("principle", "votes", "flipped", "first slot", "mean |p-0.5|", "failed"):
        table.add_column(name, justify="left" if name == "principle" else "right")
    listed = sorted(votes["by_principle"].items(), key=lambda item: (-item[1]["votes"], item[0]))
    for name, told in [*listed, ("all", votes["overall"])]:
        cells = (
            str(told["votes"]),
            _share(told["flip_rate"]),
            _share(told["first_slot_rate"]),
            "-" if told["decisiveness"] is None else f"{told['decisiveness']:.2f}",
            str(sum(told["failures"].values())),
        )
        table.add_row(name or "(general question)", *cells, end_section=name == (listed[-1][0] if listed else ""))
    console.print()
    console.print(table)
    overall = votes["overall"]
    quarantined = Counter[str](sample["quarantined"]) + Counter[str](votes["quarantined"])
    rows = {name: told["rows"] for name, told in made["formats"].items()}
    left_out = ", ".join(f"{reason} {count}" for reason, count in made["left_out"].items()) or "none"
    lines = [
        ("samples", f"{sample['responses']}, {sample['duplicates']} of them near-duplicates"),
        ("not compared", ", ".join(f"{reason} {count}" for reason, count in quarantined.items()) or "none"),
        ("preferences", ", ".join(f"{status} {count}" for status, count in made["by_status"].items()) or "none"),
        ("left out", left_out),
        *([("calibration", made["calibration"]["name"])] if "calibration" in made else []),
        ("chosen is longer", _share(made["chosen_is_longer"])),
        *_panel(votes),
        *_rationales(overall),
        *((f"{name} rows", f"{count}  {folder / 'preferences' / name}") for name, count in rows.items()),
        ("every vote", f"{folder / 'votes.jsonl'}"),
    ]
    facts = Table.grid(padding=(0, 2))
    for name, text in lines:
        facts.add_row(name, text)
    console.print(facts, soft_wrap=True)
    if (overall["flip_rate"] or 0) > 0.3:
        console.print(
            f"The judge changes its verdict with the order in {_share(overall['flip_rate'])} of the questions: both "
            "orders are averaged, but such labels are weak. A larger judge model flips less.",
            style="yellow",
        )


def _panel(votes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How far the judges of a panel differ; nothing where there was one judge."""
    if not votes.get("panels"):
        return []
    return [("judges differ", f"{votes['disagreement']:.2f} bits of 1 in the mean over {votes['panels']} pairs")]


def _rationales(overall: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Reasons behind which no verdict could be read; nothing where all could, or none were written."""
    failed = overall.get("sample_failures") or {}
    told = ", ".join(f"{reason} {count}" for reason, count in failed.items())
    return [("reasons not read", f"{told}, of {overall['samples']}")] if failed else []


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def show_status(found: Sequence[Mapping[str, Any]]) -> None:
    """One line a run; of more than one stage, what is quarantined and left in revise + sample + judge."""
    table = Table()
    for name in ("run", "done", "quarantined", "left", "SFT rows", "attempts", "last attempt"):
        table.add_column(name, justify="left" if name in ("run", "last attempt") else "right", no_wrap=name == "run")
    for run in found:
        if "error" in run:
            table.add_row(run["run"], *"-" * 5, run["error"])
            continue
        rows, attempts = run["stages"]["revise"], run["attempts"]
        sft = run["stages"]["export"]["rows"]
        last = (
            f"{attempts[-1]['ended']}, {attempts[-1]['tokens_per_second']:,.0f} tok/s"
            if attempts
            else "running or killed"
        )
        stages = [told for name, told in run["stages"].items() if name != "export"]
        aside, left = (" + ".join(str(told[state]) for told in stages) for state in ("quarantined", "left"))
        unreadable = run["prompts"].get("unreadable", 0)
        aside += f" + {unreadable} unreadable" if unreadable else ""
        cells = (rows["done"], aside, left, sum(sft.values()) if sft else _state(run), len(attempts))
        table.add_row(run["run"], *(str(cell) for cell in cells), last)
    Console().print(table)


def _state(run: Mapping[str, Any]) -> str:
    """What stands for the rows of a run without any: that its metrics cannot be read, or nothing yet."""
    return "unreadable" if run["stages"]["export"]["state"] == "unreadable" else "-"
