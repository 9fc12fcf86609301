"""`cai train ALGORITHM RECIPE`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.cli.common import Json, examples, print_json, reports_errors

if TYPE_CHECKING:
    from pydantic import BaseModel

ALGORITHMS = ("sft", "rm", "dpo", "ppo", "grpo", "rloo")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="Runs",
        epilog=examples(
            ("cai train sft recipe.yaml", "the policy on the run's revisions"),
            ("cai train dpo recipe.yaml", "the simple way: what sft made, on the run's preferences"),
            ("cai train rm recipe.yaml", "the paper's way: a reward model, which says whether it can be used,"),
            ("cai train ppo recipe.yaml", "then PPO against it"),
            ("cai train dpo recipe.yaml --set train.dpo.settings.beta=0.3 --out runs/mine/train/dpo-0.3", "beside it"),
            ("cai train dpo --settings", "what its settings can say"),
            (
                "accelerate launch --config_file examples/accelerate/fsdp.yaml -m cai train sft recipe.yaml",
                "several GPUs",
            ),
        ),
    )(train)


@reports_errors
def train(
    algorithm: Annotated[str, typer.Argument(help=", ".join(ALGORITHMS) + ".", metavar="ALGORITHM")],
    recipe: Annotated[Path | None, typer.Argument(help="Recipe file (YAML).", metavar="RECIPE")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run-dir", help="The run's folder: by default the one RECIPE was written into, else runs/NAME."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key, e.g. --set train.dpo.settings.beta=0.3.", metavar="KEY=VALUE"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of this training; RUN/train/ALGORITHM.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Set an earlier training there aside, and begin anew.")
    ] = False,
    settings: Annotated[bool, typer.Option("--settings", help="List the algorithm's settings; train nothing.")] = False,
    json: Json = False,
) -> None:
    """Train a model on what a run made. The same command resumes after Ctrl-C, a crash or a kill.

    Leaves `checkpoint/` (safetensors, card, lineage.json), `metrics.jsonl` and what it resumes from in
    RUN/train/ALGORITHM.
    """
    if settings:
        _show_settings(algorithm, json)
        return
    from cai import train as root
    from cai.config import load_recipe
    from cai.errors import InputError, MissingDependency
    from cai.processes import main_process
    from cai.progress import Progress

    if recipe is None:
        raise InputError("which recipe?", mend=f"cai train {algorithm} RECIPE")
    loaded = load_recipe(recipe, overrides or ())
    with Progress() as progress:
        try:
            prepared = root.prepare(algorithm, loaded, root.run_folder(loaded, run_dir), progress, out=out)
            outcome = root.train(prepared, fresh=fresh)
        except KeyboardInterrupt:
            progress.say("interrupted; the same command goes on")
            raise typer.Exit(130) from None
        except ImportError as error:
            raise MissingDependency(f"cannot train: {error}", extra="train") from error
    if not main_process():
        return
    if json:
        print_json({"checkpoint": str(outcome.checkpoint), "metrics": outcome.metrics})
        return
    print(f"checkpoint: {outcome.checkpoint}")
    for name, value in sorted(outcome.metrics.items()):
        if isinstance(value, int | float) and not isinstance(value, bool):
            print(f"  {name}: {value:.6g}")


def _show_settings(algorithm: str, json: bool) -> None:
    from cai.train import READ_BY
    from cai.training import algorithms

    module = algorithms.load(algorithm)
    schema: dict[str, Any] = module.Config.model_json_schema()
    if json:
        print_json(schema)
        return
    print(f"{algorithm}: {module.HELP}")
    trl = f" (what TRL's own config can say: under train.{algorithm}.trl)" if algorithm in READ_BY["trl"] else ""
    print(f"In a recipe under train.{algorithm}.settings{trl}:")
    for line in _described(module.Config, module.Config()):
        print(line)


def _described(kind: type[BaseModel], defaults: BaseModel, indent: str = "  ") -> Iterator[str]:
    """A line a setting with its default; below one that is a block, the settings inside it."""
    from cai.yamlfile import models_in

    for name, field in kind.model_fields.items():
        default, blocks = getattr(defaults, name), models_in(field.annotation)
        shown = ":" if type(default) in blocks else f" = {default!r}"
        yield f"{indent}{name}{shown}" + (f"  {field.description}" if field.description else "")
        for block in blocks:
            yield from _described(block, default if isinstance(default, block) else block(), indent + "  ")
