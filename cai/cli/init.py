"""`cai init`: start a project."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.common import Json, examples, print_json, reports_errors

_EXAMPLES = examples(
    ("cai init my-project", ""),
    ("cai init . --constitution style", "in this folder, from the constitution `style`"),
    ("cai run recipe.yaml --set 'models={policy: {backend: scripted}}'", "then, in the folder: a rehearsal"),
)


def register(app: typer.Typer) -> None:
    """Add this file's command to the top level of `cai`."""
    app.command("init", rich_help_panel="Start", epilog=_EXAMPLES)(init)


@reports_errors
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project; made if it is not there.", metavar="DIR")],
    name: Annotated[str, typer.Option("--name", help="Name of the project; the folder's by default.")] = "",
    constitution: Annotated[
        str, typer.Option("--constitution", help="Shipped constitution to start from: default, humanity or style.")
    ] = "default",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    json: Json = False,
) -> None:
    """Start a project: a constitution, its principles, a few prompts and a recipe, all yours to edit.

    Nothing that exists is overwritten without --force.
    """
    from cai.scaffold import scaffold

    own, written = scaffold(folder, name=name, constitution=constitution, force=force)
    if json:
        print_json({"name": own, "files": [str(path) for path in written]})
        return
    print(f"{len(written)} files in {folder}", file=sys.stderr)
    print(
        f"Next:\n"
        f"  cd {shlex.quote(str(folder))}\n"
        f"  cai constitution lint                     check the principles after editing them\n"
        f"  cai run recipe.yaml --run-dir runs/rehearsal --set 'models={{policy: {{backend: scripted}}}}'\n"
        f"                                            rehearse without a model\n"
        f"  then set models.policy.model in recipe.yaml and start with: cai run recipe.yaml --dry-run"
    )
