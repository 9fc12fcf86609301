"""`cai constitution test`: does a judge tell each principle's own examples apart?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.common import Json, examples, print_json, reports_errors
from cai.cli.judging import Backend, BackendSet, JudgeSet, Method, Model, Url, interruptible

EPILOG = examples(
    ("cai constitution test default --model FOLDER", "every principle of a constitution"),
    ("cai constitution test principles/mine.yaml --model FOLDER", "one principle"),
    ("cai constitution test default --model FOLDER --strict", "exit 1 if a principle does nothing or the opposite"),
    ("cai constitution test default --model FOLDER --out runs/test", "resumable; after an edit only what changed"),
    ("cai constitution test default --backend scripted", "rehearse without a model"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the group."""
    app.command("test", epilog=EPILOG)(command)


@reports_errors
def command(
    name: Annotated[
        str, typer.Argument(help="A constitution or one principle: its name or file.", metavar="NAME_OR_PATH")
    ] = "",
    model: Model = "",
    url: Url = "",
    backend: Backend = "",
    backend_set: BackendSet = None,
    method: Method = "logprob",
    options: JudgeSet = None,
    margin: Annotated[
        float, typer.Option("--margin", min=0.0, max=0.5, help="How far from 0.5 the mean p(better) has to be.")
    ] = 0.05,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 if a principle does nothing, the opposite, or gets no verdict.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of judges that draw.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder that keeps every answer: resumable, and an edited principle asks only its own.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Ask a judge each principle's question about the principle's own examples, in both orders.

    Beside it the judge's general question about the same examples: the difference is what the principle's words do.
    Without a name: all of ./principles, else the shipped ones.
    """
    from cai import asking, evaluate

    title, principles = evaluate.principles_of(name)
    given, chosen = asking.backend_of(
        backend, model=model, url=url, options=asking.options_of(backend_set or (), "--backend-set")
    )
    setting = asking.Setting(given, chosen, method, asking.options_of(options or (), "--set"), seed=seed)
    bench = asking.prepare(setting)
    work = asking.Work()
    found = interruptible(
        lambda report: evaluate.try_principles(bench, principles, work, report, margin=margin, out=out),
        resumable=out is not None,
    )
    from cai.evals.principles import ADDS_NOTHING, FAULTS

    faults = [each.id for each in found if each.verdict in FAULTS]
    idle = [each.id for each in found if each.verdict == ADDS_NOTHING]
    if json:
        rows = [each.row() for each in found]
        print_json({"name": title, "judge": bench.row(), "margin": margin, **work.row(), "principles": rows})
    else:
        from rich.console import Console

        from cai.cli.judging import principle_table

        Console().print(principle_table(found))
        print(_said(sum(each.judged > 0 for each in found), faults, idle))
    if strict and faults:
        print(f"cai: {len(faults)} principles fail: {', '.join(faults)}", file=sys.stderr)
        raise typer.Exit(1)


def _said(count: int, faults: list[str], idle: list[str]) -> str:
    """What the table comes to, of the `count` principles whose examples were judged."""
    if not count:
        return "Nothing was judged: give the principles `examples` and a `judge` question."
    said = f"This judge can be asked about all {count} principles that have examples; a few examples are no proof."
    if faults:
        said = (
            f"This judge does not follow {len(faults)} of {count} principles on their own examples: before using it, "
            "sharpen their questions, give clearer examples, or take a stronger judge."
        )
    if idle:
        said += (
            f" {len(idle)} add nothing to its general question, which tells their examples apart as well: "
            "only examples that it gets wrong would show what they do."
        )
    return said
