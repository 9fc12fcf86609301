"""`cai constitution ...`: check, show, compare and exchange principles and constitutions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cai.cli import testing
from cai.cli.common import Json, examples, print_json, reports_errors
from cai.cli.judging import Backend, BackendSet, Url

app = typer.Typer(
    no_args_is_help=True, help="Check, show, try, test, compare, import and export constitutions and principles."
)

Name = Annotated[
    str, typer.Argument(help="A constitution's name, its file, or the folder of a run.", metavar="NAME_OR_PATH")
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing files.")]


@app.command(
    epilog=examples(
        ("cai constitution lint", "all of ./constitution and ./principles"),
        ("cai constitution lint principles/no-lectures.yaml", "one file, as an editor would on saving"),
    )
)
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


@app.command(
    epilog=examples(("cai constitution show default", ""), ("cai constitution show runs/NAME", "as a run used it"))
)
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


@app.command(
    epilog=examples(
        ("cai constitution diff default constitution/mine.yaml", ""),
        ("cai constitution diff runs/NAME constitution/mine.yaml --run runs/NAME", "and how many rows it would change"),
    )
)
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
    from cai.constitution.effect import as_used, effect
    from cai.constitution.load import load_constitution
    from cai.constitution.view import difference

    before, after = load_constitution(old), load_constitution(new)
    if run:  # what the recipe says instead of them is no difference between them
        before, after = as_used(before, run), as_used(after, run)
    changes = compare(before, after)
    touched = effect(before, after, run) if run else None
    if touched and touched.strange:
        text = f"{touched.strange} rounds of {run} were not drawn from {old}; the count is of what differs from the run"
        print(f"cai: warning: {text}", file=sys.stderr)
    elif touched and touched.other:
        text = f"{run} was made with another constitution than {old} is now, so the count is not what --update would do"
        print(
            f"cai: warning: {text}; compare with its own: cai constitution diff {run} {new} --run {run}",
            file=sys.stderr,
        )
    if json:
        print_json(changes.row() | ({"run": touched.row()} if touched else {}))
        return
    Console().print(difference(changes), soft_wrap=True)
    if touched:
        print(
            f"{run}: {touched.rows_changed} of {touched.rows} rows change, "
            f"{touched.rounds_changed} of {touched.rounds} revision rounds are generated anew"
        )
        if touched.comparisons:
            more = {"whose answers change": touched.rows_changed, "that draw another principle": touched.redrawn}
            also = " or ".join(which for which, happens in more.items() if happens)
            print(
                f"{run}: {touched.comparisons_changed} of {touched.comparisons} comparisons are judged by a question "
                f"that is worded otherwise{f'; those {also} are judged anew too, and not counted' if also else ''}"
            )


@app.command(epilog=examples(("cai constitution schema --write schema", "for editors that complete and check YAML")))
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


@app.command(
    "try",
    epilog=examples(
        ("cai constitution try style -p 'How do I clean a kettle?'", ""),
        ("cai constitution try default --principle no-lectures -p 'May I skip breakfast?'", "one of its principles"),
        ("cai constitution try principles/mine.yaml -p 'Hi' --url http://127.0.0.1:8000/v1 --model NAME", ""),
        ("cai constitution try style -p 'Hi' --backend scripted", "see the steps without a model"),
    ),
)
@reports_errors
def try_(
    constitution: Annotated[
        str, typer.Argument(help="A constitution or one principle: its name or file.", metavar="NAME_OR_PATH")
    ],
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the user says.")],
    principle: Annotated[str, typer.Option("--principle", help="Ask only this principle of the constitution.")] = "",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Folder of a model (`.build/smollm2-135m-instruct` by default), or its name on the server.",
        ),
    ] = "",
    url: Url = "",
    backend: Backend = "",
    backend_set: BackendSet = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=16, help="Critique-revision pairs.")] = 1,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer of a step.")] = 256,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 1.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed, other draws and other answers.")] = 0,
    style: Annotated[Literal["chat", "base"], typer.Option("--style", help="base: for untuned models.")] = "chat",
    full: Annotated[bool, typer.Option("--full", help="Show every request whole, worked examples included.")] = False,
    json: Json = False,
) -> None:
    """Take one prompt through draft, critique and revision, and show them side by side. Nothing is written."""
    from cai import asking, preview

    loaded = preview.find(constitution, principle)
    given = asking.options_of(backend_set or (), "--backend-set")
    chosen, backend_options = preview.chosen(backend, model=model, url=url, options=given)
    if chosen == "vllm":
        print("cai: loading the model", file=sys.stderr)
    ask = preview.build(chosen, backend_options, seed=seed)
    options = preview.Options(rounds, max_tokens, temperature, seed, style)
    tried = preview.preview(loaded, prompt, ask, options)
    if json:
        print_json(tried.row())
        return
    from rich.console import Console

    from cai.cli.trying import render

    console = Console()
    console.print(render(tried, width=console.width, full=full))


testing.register(app)


@app.command(
    "import",
    epilog=examples(("cai constitution import CritiqueRevisionInstructions.json --format anthropic --out mine", "")),
)
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


@app.command(epilog=examples(("cai constitution export default --format huggingface --out default.json", "")))
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
