"""The command `cai`: one file a command group.

Every module imported here imports only typer and the standard library at its top, so that `cai --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import cai
from cai.cli import constitution, prompts, run

app = typer.Typer(
    name="cai",
    help="Constitutional AI: from principle files to critique-revised training data.\n\n"
    "Start with `cai init DIR`, or look at `cai run --help`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(constitution.app, name="constitution")
app.add_typer(prompts.app, name="prompts")
run.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"cai {cai.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See `app`'s help; options that hold for all commands."""
