"""`cai prompts`: import prompts from the formats people have, remove duplicates, count."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cai.cli.common import Json, examples, print_json, reports_errors

if TYPE_CHECKING:
    from cai.prompts.importing import ImportOptions, Summary
    from cai.prompts.rows import ReadOptions

app = typer.Typer(name="prompts", help="Import prompts, remove duplicates, count.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="JSONL file to write.")]
Format = Annotated[
    str, typer.Option("--format", help="auto, csv, dataset, hh, jsonl, parquet, red-team or text (one prompt a line).")
]
Field = Annotated[
    list[str] | None,
    typer.Option("--field", help="Key or column of the prompt (a.0.b for a nested one). Several are joined in order."),
]
Dropped = Annotated[Path | None, typer.Option("--dropped", help="JSONL file for every row left out, with the reason.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")]
AllowTorn = Annotated[
    bool, typer.Option("--allow-torn", help="Take what can be read of a torn or corrupt file; else it is an error.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace output files that exist.")]
TurnsFlag = Annotated[
    Literal["first", "all"] | None,
    typer.Option("--turns", help="first: up to the first user turn; all: up to the last. Default: by format."),
]
Paragraphs = Annotated[bool, typer.Option("--paragraphs", help="Text: one prompt a paragraph instead of a line.")]


@app.command(
    "import",
    epilog=examples(
        ("cai prompts import questions.csv --field question --tag helpful --out prompts.jsonl", ""),
        ("cai prompts import red.txt more.parquet --near 0.85 --dropped out.jsonl --out prompts.jsonl", ""),
    ),
)
@reports_errors
def import_(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC", help="Files, or data sets saved on disk.")],
    out: Out,
    format: Format = "auto",
    field: Field = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="Label for every prompt; may be repeated.")] = None,
    turns: TurnsFlag = None,
    paragraphs: Paragraphs = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop when so many are written.")] = None,
    no_dedup: Annotated[bool, typer.Option("--no-dedup", help="Keep exact duplicates (equal ids) too.")] = False,
    near: Annotated[
        float | None, typer.Option("--near", help="Also drop near-duplicates from this similarity on, such as 0.85.")
    ] = None,
    dropped: Dropped = None,
    strict: Strict = False,
    allow_torn: AllowTorn = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Turn prompts of any format into one JSONL file of ours; every row left out is counted."""
    from cai.prompts.importing import ImportOptions

    options = ImportOptions(
        format=format,
        read=_read_options(field, turns, paragraphs),
        tags=tuple(tag or ()),
        limit=limit,
        dedup=not no_dedup,
        near=near,
        strict=strict,
        allow_torn=allow_torn,
    )
    _import(sources, out, options, dropped, force=force, json=json)


@app.command(epilog=examples(("cai prompts dedup prompts.jsonl --out unique.jsonl", "")))
@reports_errors
def dedup(
    file: Annotated[Path, typer.Argument(help="Prompts, in any format that import reads.")],
    out: Out,
    near: Annotated[float, typer.Option("--near", help="Similarity from which two prompts are the same.")] = 0.85,
    exact: Annotated[bool, typer.Option("--exact", help="Drop equal prompts only.")] = False,
    format: Format = "auto",
    field: Field = None,
    dropped: Dropped = None,
    strict: Strict = False,
    allow_torn: AllowTorn = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Remove exact and near-duplicates; the first of those alike is kept."""
    from cai.prompts.importing import ImportOptions

    read = _read_options(field, None, False)
    options = ImportOptions(
        format=format, read=read, near=None if exact else near, strict=strict, allow_torn=allow_torn
    )
    _import([file], out, options, dropped, force=force, json=json)


@app.command(epilog=examples(("cai prompts stats prompts.jsonl", "")))
@reports_errors
def stats(
    file: Annotated[Path, typer.Argument(help="Prompts, in any format that import reads.")],
    near: Annotated[float, typer.Option("--near", help="Similarity from which two prompts are the same.")] = 0.85,
    format: Format = "auto",
    field: Field = None,
    turns: TurnsFlag = None,
    paragraphs: Paragraphs = False,
    json: Json = False,
) -> None:
    """Rows, tags, turns, lengths and duplicates of a file of prompts."""
    from cai.prompts.importing import size_of
    from cai.prompts.progress import byte_progress
    from cai.prompts.read import read_rows
    from cai.prompts.stats import stats as count

    options = _read_options(field, turns, paragraphs)
    total = size_of([file])
    with byte_progress(total, "reading", sys.stderr) as tick:
        found = count(read_rows(file, format, options=options, tick=tick), near=near)
    if json:
        print_json(found)
    else:
        _print_stats(found)


def _read_options(field: list[str] | None, turns: Literal["first", "all"] | None, paragraphs: bool) -> ReadOptions:
    from cai.prompts.rows import ReadOptions

    return ReadOptions(fields=tuple(field or ()), turns=turns, paragraphs=paragraphs)


def _import(
    sources: list[Path], out: Path, options: ImportOptions, dropped: Path | None, *, force: bool, json: bool
) -> None:
    from cai.prompts.importing import import_prompts, size_of
    from cai.prompts.progress import byte_progress

    with byte_progress(size_of(sources), "importing", sys.stderr) as tick:
        summary = import_prompts(sources, out, options=options, dropped=dropped, force=force, on_bytes=tick)
    _print_problems(summary, dropped)
    if json:
        print_json({"out": str(out), **summary.row()})
    else:
        _print_summary(summary, out, print)


def _print_problems(summary: Summary, dropped: Path | None) -> None:
    for bad in summary.problems:
        print(f"cai: skipped: {bad}", file=sys.stderr)
    more = summary.skipped - len(summary.problems)
    if more:
        place = f"all are in {dropped}" if dropped else "--dropped FILE lists them"
        print(f"cai: skipped: {more} more ({place})", file=sys.stderr)


_NOTES = {
    "answer_dropped": "conversations ended with an answer, which was left out",
    "later_turns_left_out": "conversations were cut after their first user turn (see --turns)",
    "id_recomputed": "rows had an id that did not fit their messages; it was computed anew",
}


def _print_summary(summary: Summary, out: Path, say: Callable[[str], None]) -> None:
    say(f"{summary.written} prompts in {out}, of {summary.found} rows")
    counts = {
        "exact duplicates dropped": summary.exact,
        "near-duplicates dropped": summary.near,
        "rows skipped, as they could not be read": summary.skipped,
        "files torn or corrupt; what comes after that place is lost": summary.torn,
        "exact duplicates kept": summary.copies,
        **{text: summary.notes[note] for note, text in _NOTES.items()},
    }
    for text, count in counts.items():
        if count:
            say(f"  {count} {text}")
    for tag, count in sorted(summary.tags.items()):
        say(f"  {count} with the tag {tag}")
    if summary.limited:
        say("  stopped by --limit; there are more rows")


def _print_stats(found: dict[str, Any]) -> None:
    exact, near = found["exact_duplicates"], found["near_duplicates"]
    bound = "at least " if near["lower_bound"] else ""
    lines = {
        "rows": f"{found['rows']}" + (f", {found['skipped']} skipped" if found["skipped"] else ""),
        "tags": ", ".join(f"{tag} {count}" for tag, count in found["tags"].items()),
        "turns": ", ".join(f"{turns}: {count}" for turns, count in found["turns"].items()),
        "same speaker twice in a row": str(found["same_speaker_twice"]),
        "characters": ", ".join(f"{name} {value}" for name, value in found["characters"].items()),
        "words": ", ".join(f"{name} {value}" for name, value in found["words"].items()),
        "exact duplicates": f"{exact['rows']} ({exact['share']:.1%})",
        "near-duplicates": f"{near['rows']} of {near['of']} looked at ({bound}{near['share']:.1%})",
        "longest": ", ".join(f"{row['id']} ({row['characters']})" for row in found["longest"]),
    }
    for name, text in lines.items():
        print(f"{name}: {text}")
