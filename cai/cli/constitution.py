"""`cai constitution ...`: check, show, compare and exchange principles and constitutions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.common import Json, print_json, reports_errors

app = typer.Typer(no_args_is_help=True, help="Check, show, compare, import and export constitutions.")

Name = Annotated[
    str, typer.Argument(help="A constitution's name, its file, or the folder of a run.", metavar="NAME_OR_PATH")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


@app.command()
@reports_errors
def lint(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Constitution files, principle files or folders.", metavar="[PATHS]...")
    ] = None,
    json: Json = False,
) -> None:
    """Print every problem as file:line:column: message; exit 1 if there are any.

    Without PATHS: ./constitution and ./principles, else the shipped ones.
    """
    from dataclasses import asdict

    from cai.constitution.lint import lint as find_problems

    problems = find_problems(paths or ())
    if json:
        print_json({"problems": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print("cai: no problems found", file=sys.stderr)
    if problems:
        raise typer.Exit(1)


@app.command()
@reports_errors
def show(constitution: Name, json: Json = False) -> None:
    """Show a constitution's principles with their levels and shares of the weight."""
    from rich.console import Console

    from cai.constitution.load import load_constitution
    from cai.constitution.view import summary, table

    loaded = load_constitution(constitution)
    if json:
        print_json(summary(loaded))
    else:
        Console().print(table(loaded))


@app.command()
@reports_errors
def diff(
    old: Annotated[str, typer.Argument(help="A constitution's name, its file, or the folder of a run.")],
    new: Annotated[str, typer.Argument(help="The one it is compared with.")],
    run: Annotated[
        Path | None, typer.Option(help="A run's folder: count how many of its rows the change touches.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what changed: principles added, removed, reworded, re-weighted, re-levelled; examples and templates."""
    from rich.console import Console

    from cai.constitution.diff import diff as compare
    from cai.constitution.effect import effect
    from cai.constitution.load import load_constitution
    from cai.constitution.view import difference

    before, after = load_constitution(old), load_constitution(new)
    changes = compare(before, after)
    touched = effect(before, after, run) if run else None
    if touched and touched.strange:
        text = f"{touched.strange} rounds of {run} were not drawn from {old}; the count is of what differs from the run"
        print(f"cai: warning: {text}", file=sys.stderr)
    if json:
        print_json(changes.row() | ({"run": touched.row()} if touched else {}))
        return
    Console().print(difference(changes), soft_wrap=True)
    if touched:
        print(
            f"{run}: {touched.rows_changed} of {touched.rows} rows change, "
            f"{touched.rounds_changed} of {touched.rounds} revision rounds are generated anew"
        )


@app.command()
@reports_errors
def schema(
    kind: Annotated[str | None, typer.Argument(help="principle or constitution; default both.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write KIND.schema.json files into this folder.")] = None,
) -> None:
    """Print the JSON Schema of the files, or write it for editors to check and complete by."""
    from cai.constitution.schema import MODELS, write_schemas
    from cai.constitution.schema import schema as schema_of

    schemas = {name: schema_of(name) for name in ((kind,) if kind else MODELS)}
    if write:
        for path in write_schemas(write, tuple(schemas)):
            print(path, file=sys.stderr)
    else:
        print_json(schemas[kind] if kind else schemas)


@app.command("import")
@reports_errors
def import_(
    sources: Annotated[list[Path], typer.Argument(help="JSON files; several are merged.", metavar="SRC...")],
    format: Annotated[str, typer.Option(help="anthropic or huggingface.")],
    out: Annotated[Path, typer.Option(help="Folder that gets constitution/NAME.yaml and principles/*.yaml.")],
    name: Annotated[str, typer.Option(help="Name of the constitution; default the format's.")] = "",
    force: Force = False,
) -> None:
    """Turn another tool's constitution files into ours; exporting gives back the same JSON."""
    from cai.constitution.exchange import import_constitution, save

    imported = import_constitution(sources, format, name=name)
    written = save(imported, out, force=force)
    for note in imported.notes:
        print(f"cai: note: {note}", file=sys.stderr)
    print(f"cai: {len(written)} files written below {out}", file=sys.stderr)


@app.command()
@reports_errors
def export(
    constitution: Name,
    format: Annotated[str, typer.Option(help="anthropic or huggingface.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    part: Annotated[
        str,
        typer.Option(
            help="Which of the anthropic files: critique-revision (default), few-shot, preference, "
            "preference-few-shot or preference-cot-few-shot."
        ),
    ] = "",
    force: Force = False,
) -> None:
    """Write a constitution in another tool's format; what that cannot carry is listed on stderr."""
    from cai.constitution.exchange import export_constitution, refuse_existing
    from cai.constitution.load import load_constitution
    from cai.store import write_json

    exported = export_constitution(load_constitution(constitution), format, part=part)
    refuse_existing([out], force=force)
    write_json(out, exported.data)
    for note in exported.notes:
        print(f"cai: not in {out}: {note}", file=sys.stderr)
