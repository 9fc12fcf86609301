"""The command `cai`: one file a command group.

Every module imported here imports only typer and the standard library at its top, so that `cai --help` answers at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import cai
from cai.cli import constitution, init, label, merge, prompts, run, train
from cai.cli import eval as evaluation
from cai.cli.common import examples

FIRST_STEPS = examples(
    ("cai init my-project", "a constitution, principles, prompts and a recipe, yours to edit"),
    ("cai constitution try style -p 'How do I clean a kettle?'", "what a principle does to an answer"),
    ("cai run recipe.yaml --dry-run", "what a run will cost"),
    ("cai run recipe.yaml", "the run; the same command resumes it"),
    ("cai why runs/my-project ID", "the story of one training row"),
    title="First steps:",
)

app = typer.Typer(
    name="cai",
    help="Constitutional AI: from principle files to critique-revised training data and judged preferences.",
    epilog=FIRST_STEPS,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
init.register(app)
app.add_typer(constitution.app, name="constitution", rich_help_panel="Principles and prompts")
app.add_typer(prompts.app, name="prompts", rich_help_panel="Principles and prompts")
run.register(app)
train.register(app)
app.add_typer(label.app, name="label", rich_help_panel="People")
merge.register(app)
app.add_typer(evaluation.app, name="eval", rich_help_panel="Measure")


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
