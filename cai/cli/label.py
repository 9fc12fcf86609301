"""`cai label ...`: what people say, in and out, and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cai.cli import label_serve, label_stats
from cai.cli.common import Json, examples, print_json, reports_errors
from cai.errors import InputError

app = typer.Typer(no_args_is_help=True, help="People in the loop: label, import, agree, route.")
label_serve.register(app)
label_stats.register(app)

Run = Annotated[Path, typer.Argument(help="Folder of the run, e.g. runs/demo.", metavar="RUN")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="label_studio, argilla, alpaca_eval, arena, multipref, helpsteer, crowdkit, csv or jsonl.",
    ),
]


@app.callback()
def group() -> None:
    """People in the loop: label, import, agree, route."""


@app.command(
    name="export",
    epilog=examples(
        ("cai label export runs/demo --format label_studio --out tasks.json", "all pairs"),
        ("cai label export runs/demo --format csv --items route.jsonl --out tasks.csv", "those that `route` chose"),
        (
            "cai label export runs/demo --labels --format argilla --out labels.json",
            "what people said, and what was lost",
        ),
        ("cai label export runs/demo --demonstrations --out edits.jsonl", "answers that people rewrote, as SFT rows"),
    ),
)
@reports_errors
def export_command(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    format: Format = "jsonl",
    items: Annotated[Path | None, typer.Option("--items", help="Only the pairs of this file of `route`.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first so many.")] = None,
    demonstrations: Annotated[
        bool, typer.Option("--demonstrations", help="Instead: the answers that people rewrote, as SFT rows.")
    ] = False,
    labels: Annotated[
        bool, typer.Option("--labels", help="Instead: what people said so far, with a report of what is lost.")
    ] = False,
    axis: Annotated[
        str | None, typer.Option("--axis", help="With --labels: only this axis (some formats know none).")
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="With what the judge says (label_studio, argilla); biases people.")
    ] = False,
    interface: Annotated[
        Path | None,
        typer.Option("--interface", help="Also write the tool's interface, a question an axis (label_studio)."),
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's pairs for another labelling tool; sides are shuffled by hash, and the order is recorded.

    With --labels, what people said so far goes out in that tool's format instead.
    """
    from cai import people

    if labels and (demonstrations or predictions or items or limit or interface):
        raise InputError("--labels writes labels, not tasks", mend="leave out the other options; --axis narrows it")
    if axis is not None and not labels:
        raise InputError("tasks are of all axes", mend="--axis goes with --labels")
    if labels:
        _show_export(people.export_labels(run, out, format, axis=axis).row(), out, json)
        return
    if interface is not None:
        people.write_interface(run, interface, format)
    if demonstrations:
        count = people.write_demonstrations(run, out)
    else:
        count = people.export_tasks(run, out, format, only=items, limit=limit, hints=predictions)
    if json:
        print_json({"rows": count, "path": str(out)})
    else:
        print(f"{count} rows in {out}")


@app.command(
    name="import",
    epilog=examples(
        ("cai label import runs/demo export.json --format label_studio", "the same file again adds nothing"),
        ("cai label import runs/demo votes.csv --format csv --strict", "stop at the first broken row"),
        ("cai label import runs/demo votes.csv --format csv --dry-run", "the report alone"),
    ),
)
@reports_errors
def import_command(
    run: Run,
    file: Annotated[Path, typer.Argument(help="Export of a labelling tool (.gz too).", metavar="FILE")],
    format: Format = "jsonl",
    axis: Annotated[str, typer.Option("--axis", help="Axis of rows that name none.")] = "",
    also: Annotated[
        str, typer.Option("--also-axis", help="Axes, separated by commas, that people were asked on and the judge not.")
    ] = "",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first broken row, unknown pair or axis; nothing is written.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report, and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Add what people said elsewhere to a run's labels, and report every trap in the file.

    Exit code 1 where rows were broken, or about pairs or axes that the run does not know.
    """
    from cai import people

    more = [word.strip() for word in also.split(",") if word.strip()]
    report = people.import_labels(run, file, format, axis=axis, also=more, strict=strict, dry_run=dry_run)
    if json:
        print_json(report.row())
    else:
        _show(report.row(), dry_run)
    if any(report.traps[name] for name in ("broken", "unknown_pair", "ambiguous", "unknown_axis")):
        raise typer.Exit(1)


def _show_export(report: dict[str, Any], out: Path, json: bool) -> None:
    if json:
        print_json(report | {"path": str(out)})
        return
    print(f"{report['labels']} labels in {report['rows']} rows in {out}")
    for name, lost in report["lost"].items():
        print(f"lost: {name} {lost['count']}: {lost['what']}")


def _show(report: dict[str, Any], dry_run: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    would = "would be " if dry_run else ""
    print(
        f"{report['rows']} rows, {report['verdicts']} verdicts of {len(report['annotators'])} people: "
        f"{report['added']} {would}added, {report['known']} known already, {report['edits']} with an edited answer"
    )
    for note in report["notes"]:
        print(f"note: {note}")
    if report["traps"]:
        table = Table("met", "what", "for example")
        for name, found in report["traps"].items():
            table.add_row(f"{name} {found['count']}", found["what"], Text("\n".join(found["examples"][:3])))
        Console().print(table)
