"""`cai eval ...`: measure judges and models."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cai.cli.common import Json, examples, print_json, reports_errors
from cai.cli.judging import Backend, BackendSet, JudgeSet, Method, Model, Url, interruptible

if TYPE_CHECKING:
    from cai.asking import Bench
    from cai.evaluate import Measured

app = typer.Typer(no_args_is_help=True, help="Measure judges against people.")


@app.callback()
def group() -> None:
    """Measure judges against people."""


@app.command(
    epilog=examples(
        ("cai eval judge --pairs pairs.jsonl --model FOLDER", "rows {id, prompt, chosen, rejected, subset}"),
        ("cai eval judge --pairs pairs.jsonl --model FOLDER --limit 200 --out runs/judge", "a sample; resumable"),
        ("cai eval judge --pairs pairs.jsonl --model FOLDER --constitution default --principles all", ""),
        ("cai eval judge --pairs pairs.jsonl --model FOLDER --calibrate careful", "fit on a half, measure the rest"),
        ("cai eval judge --pairs pairs.jsonl --url http://127.0.0.1:8000/v1 --model NAME --json", "a server, scripts"),
        ("cai eval judge --pairs pairs.jsonl --backend scripted", "rehearse without a model"),
    )
)
@reports_errors
def judge(
    pairs: Annotated[Path, typer.Option("--pairs", help="JSONL (.gz): ours, RewardBench, LLMBar, PandaLM, HH-RLHF.")],
    model: Model = "",
    url: Url = "",
    backend: Backend = "",
    backend_set: BackendSet = None,
    method: Method = "logprob",
    options: JudgeSet = None,
    constitution: Annotated[str, typer.Option("--constitution", help="Ask its principles' questions.")] = "",
    principles: Annotated[
        Literal["drawn", "all", "none"] | None,
        typer.Option("--principles", help="One drawn a pair (default with --constitution); all, averaged; none."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many pairs, drawn by hash (not the first ones).")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of what is drawn: pairs, principles, halves.")] = 0,
    calibrate: Annotated[
        str | None,
        typer.Option(
            "--calibrate",
            help="Fit a calibration, measured on unseen prompts; a name (calibrations/NAME.json) or file.",
        ),
    ] = None,
    fit: Annotated[
        Literal["temperature", "platt"], typer.Option("--fit", help="What --calibrate fits; platt: also an offset.")
    ] = "temperature",
    folds: Annotated[
        int, typer.Option("--folds", min=0, help="With --calibrate: measure by so many folds; 0: by halves.")
    ] = 0,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="Measure a calibration that was written before; its name or file."),
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Folder of another judge (its --out): the paired difference.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for votes, report and diagram; makes it resumable.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure a judge on pairs of which people said which answer is better.

    Accuracy, calibration, and what the order of the answers does to it; beside what one person would reach where
    several people labelled a pair. A pair without a verdict is in no score; `coverage` says how many have one.
    """
    from cai import asking, evaluate
    from cai.errors import InputError
    from cai.evals.calibration import calibration_path

    if principles not in (None, "none") and not constitution:
        raise InputError("needs --constitution", where="--principles")
    if calibrate and calibration:
        raise InputError("give only one of --calibrate and --calibration")
    if folds and not calibrate:
        raise InputError("goes with --calibrate", where="--folds")
    name, given = asking.backend_of(
        backend, model=model, url=url, options=asking.options_of(backend_set or (), "--backend-set")
    )
    setting = asking.Setting(
        backend=name,
        backend_options=given,
        method=method,
        options=asking.options_of(options or (), "--set"),
        constitution=constitution,
        principles=principles or ("drawn" if constitution else "none"),
        seed=seed,
    )
    fitted, applied = (calibration_path(each, Path()) if each else None for each in (calibrate, calibration))
    asked = evaluate.Task(pairs, limit, fitted, fit, folds, applied, against, out)
    bench = asking.prepare(setting)
    measured = interruptible(lambda report: evaluate.measure(bench, asked, report), resumable=out is not None)
    _show(bench, measured, json, out)


def _show(bench: Bench, measured: Measured, json: bool, out: Path | None) -> None:
    for warning in measured.warnings:
        print(f"cai: warning: {warning}", file=sys.stderr)
    if json:
        print_json(measured.report)
        return
    from rich.console import Console

    from cai.cli.judging import facts, judge_lines, subset_table

    report: dict[str, Any] = measured.report
    console = Console()
    asked = report["judge"]
    what = f"{asked['constitution']}, principles {asked['principles']}" if asked["constitution"] else "its own question"
    print(f"{bench.setting.method} by {bench.fingerprint}, {what}")
    console.print(facts(list(judge_lines(report))), soft_wrap=True)
    if report["subsets"]:
        console.print(subset_table(report["subsets"]))
    print(report["advice"])
    print(f"Intervals are 95 %, by prompt.{f' Files: {out}' if out else ''}", file=sys.stderr)
