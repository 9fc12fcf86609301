"""Options that every command with a judge shares, and the tables that such commands print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from cai.evals.principles import Tested
    from cai.progress import Progress

Model = Annotated[str, typer.Option("--model", help="The judge: folder of a model, or its name on the server.")]
Url = Annotated[str, typer.Option("--url", help="Server with OpenAI's API, e.g. http://127.0.0.1:8000/v1.")]
Backend = Annotated[str, typer.Option("--backend", help="vllm (default), openai (with --url) or scripted.")]
BackendSet = Annotated[
    list[str] | None,
    typer.Option("--backend-set", help="Option of the backend, e.g. context=2048. Repeatable.", metavar="KEY=VALUE"),
]
Method = Annotated[str, typer.Option("--method", help="How it judges: a file of cai/judges (logprob, cot, ...).")]
JudgeSet = Annotated[
    list[str] | None,
    typer.Option("--set", help="Option of the method, e.g. orders=one. Repeatable.", metavar="KEY=VALUE"),
]
Result = TypeVar("Result")


def interruptible(stage: Callable[[Progress], Result], *, resumable: bool) -> Result:
    """Run `stage` with progress on stderr; Ctrl-C and SIGTERM say whether the same command goes on."""
    from cai.errors import CaiError
    from cai.pipeline import terminable
    from cai.progress import Progress

    with Progress() as progress, terminable():
        try:
            return stage(progress)
        except KeyboardInterrupt:
            progress.finish()
            kept = "every answer is kept, and the same command goes on" if resumable else "nothing is kept"
            progress.say(f"interrupted; {kept}" + ("" if resumable else " (--out FOLDER makes it resumable)"))
            raise typer.Exit(130) from None
        except CaiError:
            progress.finish()
            raise


# --- figures as people read them --------------------------------------------------------------------------------------


def number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)


def with_interval(value: float | None, interval: Sequence[float] | None, form: str = ".3f") -> str:
    """`0.612 (0.58 to 0.64)`."""
    if value is None or interval is None:
        return "-"
    return f"{value:{form}} ({interval[0]:{form}} to {interval[1]:{form}})"


def facts(lines: Sequence[tuple[str, str]]) -> Table:
    """Names and values, two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, text in lines:
        table.add_row(Text(name), Text(text))
    return table


def judge_lines(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The figures of `cai eval judge`."""
    sampled = report["sampled"]
    drawn = f" of {sampled['of']}, drawn by hash with seed {sampled['seed']}" if sampled else ""
    yield "pairs", f"{report['n']:,}{drawn}; {report['prompts']:,} prompts"
    if report["broken_rows"]:
        yield "rows left out", f"{report['broken_rows']:,} (see above)"
    failures = ", ".join(f"{name} {count}" for name, count in report["failures"].items())
    lost = f"; no verdict: {failures}" if failures else ""
    yield "with a verdict", f"{report['judged']:,} ({number(report['coverage'], '.1%')}){lost}"
    if report["sample_failures"]:
        unread = ", ".join(f"{name} {count:,}" for name, count in report["sample_failures"].items())
        yield "rationales not read", f"{unread}, of {report['samples']:,}"
    if report["people_tie"]:
        yield "people undecided", f"{report['people_tie']:,}, in no two-sided score"
    yield "accuracy", with_interval(report["accuracy"], report["accuracy_ci"])
    yield "Brier, log loss, ECE", ", ".join(number(report[name]) for name in ("brier", "log_loss", "ece"))
    yield "flips with the order", number(report["flip_rate"], ".1%")
    yield "prefers the first slot", number(report["first_slot_rate"], ".1%")
    if report["tie_rate"]:
        yield "ties", number(report["tie_rate"], ".1%")
    if report["three_way"]:
        found = report["three_way"]
        yield "agreement, ties a class", with_interval(found["agreement"], found["agreement_ci"])
    yield from _people(report["people"])
    yield from _calibration(report.get("calibration"))
    yield from _against(report.get("against"))
    yield from _cost(report)


def _cost(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    usage, speed = report["usage"], report["pairs_per_second"]
    read, written = usage["fresh_prompt_tokens"], usage["fresh_completion_tokens"]
    if usage["fresh_requests"]:
        cached = f" ({usage['cached_prompt_tokens']:,} from the prefix cache)" if usage["cached_prompt_tokens"] else ""
        reused = f"; {usage['reused_requests']:,} from the log" if usage["reused_requests"] else ""
        tokens = f"{read:,} tokens read{cached}, {written:,} written"
        yield "cost", f"{usage['fresh_requests']:,} requests{reused}; {tokens}; {report['seconds']:,.1f} s"
        yield "speed", f"{speed:,.2f} pairs a second"
    else:
        yield "cost", "none: all from the request log" if usage["reused_requests"] else "none: nothing could be asked"


def _people(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if not found:
        return
    for key, name in (("two_way", "ties half"), ("three_way", "ties a class")):
        part = found[key]
        if part["difference"]:
            gap = with_interval(part["difference"]["mean"], part["difference"]["ci"], "+.3f")
            told = f"{number(part['person'])} one person, {number(part['judge'])} the judge; difference {gap}"
            yield f"with the other people, {name}", told


def _calibration(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if not found:
        return
    if "error" in found:
        yield "calibration", f"none: {found['error']}"
        return
    raw, made = found["raw"], found["calibrated"]
    parameters = ", ".join(f"{name} {value:.3g}" for name, value in found["parameters"].items())
    named = f"{found['name']}: " if found.get("name") else ""
    how = found["how"].replace("_", " ")
    yield "calibration", f"{named}{found['method']}, {parameters}; {how}, {found['n']} pairs unseen"
    for name in ("log_loss", "brier", "ece"):
        yield f"  {name.replace('_', ' ')}", f"{number(raw[name])} raw, {number(made[name])} calibrated"


def _against(found: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if found:
        gap = with_interval(found["mean"], found["ci"], "+.3f")
        yield "against the other judge", f"accuracy {gap} on {found['n']} pairs that both judged"


def subset_table(subsets: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row a subset."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # So narrow that 80 columns leave the names their room; failures are in the report.
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("subset", overflow="fold")
    for name in ("judged", "accuracy (95 %)", "Brier", "flips", "slot 1"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, part in subsets.items():
        cells = (
            *(f"{part['judged']}/{part['n']}", with_interval(part["accuracy"], part["accuracy_ci"], ".2f")),
            *(number(part["brier"], ".2f"), number(part["flip_rate"], ".0%"), number(part["first_slot_rate"], ".0%")),
        )
        table.add_row(Text(name or "(none)"), *cells)
    return table


def principle_table(found: Sequence[Tested]) -> Table:
    """One row a principle."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    styles = {"tells apart": "green", "does nothing": "yellow", "opposite": "red", "no verdict": "red"}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("principle", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for name in ("right", "p(better)", "without", "change", "flips"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        right = f"{each.right} of {each.examples}" if each.examples else "-"
        cells = (right, number(each.p, ".2f"), number(each.p_without, ".2f"), number(each.difference, "+.2f"))
        flips = str(each.flips) if each.judged else "-"
        table.add_row(Text(each.id), Text(each.verdict, style=styles.get(each.verdict, "dim")), *cells, flips)
    return table
