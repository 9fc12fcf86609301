"""`cai label serve`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cai.cli.common import examples, reports_errors


def register(app: typer.Typer) -> None:
    """Add the command to `cai label`."""
    app.command(
        epilog=examples(
            ("cai label serve runs/demo --annotators ann,bea --overlap 2", "two people see every pair"),
            ("cai label serve runs/demo --items next.jsonl", "the pairs that `cai label route` chose"),
            ("cai label serve runs/demo --items runs/demo/merge-quarantine.jsonl", "one more person on each set aside"),
            ("cai label serve runs/demo --mode ranking", "all answers to a prompt at once"),
        )
    )(serve)


@reports_errors
def serve(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    annotators: Annotated[
        str, typer.Option("--annotators", help="Names, separated by commas, or a file with one a line.")
    ] = "me",
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; this machine only by default.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", help="A further name the page may be asked for, as behind a proxy.", metavar="NAME"
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8642,
    overlap: Annotated[int, typer.Option("--overlap", min=1, help="People who see each item.")] = 1,
    quota: Annotated[int, typer.Option("--quota", min=0, help="Most items a person; 0: no limit.")] = 0,
    mode: Annotated[Literal["pairs", "rating", "ranking"], typer.Option("--mode")] = "pairs",
    axes: Annotated[
        str,
        typer.Option(
            "--axes", help="Questions asked, e.g. helpful,harmless; by default the judge's. One if not pairs."
        ),
    ] = "",
    items: Annotated[
        Path | None, typer.Option("--items", help="Only the pairs of this file of `route`, or of a merge's quarantine.")
    ] = None,
    gold: Annotated[
        Path | None,
        typer.Option("--gold", help="JSONL of comparison_id, verdict (a or b) and axis if several, to check people."),
    ] = None,
    show_ai: Annotated[bool, typer.Option("--show-ai", help="Show what the AI judge says (biases people).")] = False,
    renew: Annotated[bool, typer.Option("--renew", help="New links; the old ones are void.")] = False,
) -> None:
    """A page on which people label a run's pairs: blind, sides shuffled for each person, by keyboard or phone.

    Each person gets a link of their own. Verdicts go to RUN/labels.sqlite at once; as events to RUN/labels.jsonl when
    the page ends, or when another command reads the labels.
    """
    from cai import serving

    asked = serving.Serving(
        run,
        _names(annotators),
        host=host,
        port=port,
        overlap=overlap,
        quota=quota,
        mode=mode,
        axes=tuple(word.strip() for word in axes.split(",") if word.strip()),
        items=items,
        gold=gold,
        hint=show_ai,
        allow_hosts=tuple(allow_host or ()),
    )

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    added = serving.serve(asked, say, renew=renew)
    print(f"{added} label events added to {run / 'labels.jsonl'}")


def _names(given: str) -> tuple[str, ...]:
    """The people named in an option's text, or in the file that it names; each once."""
    from cai.store import readable

    text = given.replace(",", "\n")
    if os.path.isfile(given):  # noqa: PTH113 (Path's own raises where a list of names is longer than a file's name can be)
        with readable(Path(given), mend="save the names as UTF-8 text, one a line"):
            text = Path(given).read_text("utf-8")
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
