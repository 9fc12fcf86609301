"""`cai run`, its stages alone, and what tells about a run: `status`, `why`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai.cli.common import Json, examples, print_json, reports_errors

if TYPE_CHECKING:
    from cai.pipeline import Job

Recipe = Annotated[Path, typer.Argument(help="Recipe file (YAML). `cai init` writes one.", metavar="RECIPE")]
RunDir = Annotated[
    Path | None,
    typer.Option(
        "--run-dir", help="The run's folder; by default the one that RECIPE was written into, else runs/NAME."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Override a key of the recipe, e.g. --set revise.rounds=4. Repeatable.", metavar="KEY=VALUE"
    ),
]
Update = Annotated[
    bool, typer.Option("--update", help="Inputs changed on purpose: make the run anew, reusing all unchanged requests.")
]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Ask again for rows that a failing backend, or a context too small, quarantined."
    ),
]
Run = Annotated[Path, typer.Argument(help="A run's folder.", metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the top level of `cai`."""
    for name, (command, epilog) in COMMANDS.items():
        app.command(name, epilog=epilog, rich_help_panel="Runs")(command)


def _prepare(recipe: Path, overrides: list[str] | None, run_dir: Path | None, *, asks: bool = True) -> tuple[Job, Path]:
    """The job of a recipe and its run's folder; where no model is to be asked, the run has to be there."""
    from cai.config import load_recipe
    from cai.pipeline import prepare, recorded
    from cai.runs import folder_of, open_run

    loaded = load_recipe(recipe, overrides or ())
    folder = run_dir or folder_of(loaded.path, loaded.recipe.name)
    known = None if asks else recorded(open_run(folder).read_manifest() or {})
    return prepare(loaded, known=known), folder


@reports_errors
def run(
    recipe: Recipe,
    run_dir: RunDir = None,
    overrides: Set = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show requests, tokens and time; load no model.")] = False,
    update: Update = False,
    retry_failed: RetryFailed = False,
    json: Json = False,
) -> None:
    """Run all stages of a recipe: critique and revision, SFT data; with a judge in it, samples, votes, preferences too.

    The same command resumes: after Ctrl-C, a crash or a full disk, run it again. Finished rows and every completion
    already generated are kept.
    """
    job, folder = _prepare(recipe, overrides, run_dir)
    if dry_run:
        _show_estimate(job, folder, json, update=update, retry_failed=retry_failed)
        return
    from cai import pipeline

    _work(folder, json, lambda report: pipeline.run(job, folder, report, update=update, retry_failed=retry_failed))


@reports_errors
def revise(
    recipe: Recipe,
    run_dir: RunDir = None,
    overrides: Set = None,
    update: Update = False,
    retry_failed: RetryFailed = False,
    json: Json = False,
) -> None:
    """Only the critique-and-revise stage of a recipe; `cai export` makes the data set from it."""
    _stage("revise", recipe, run_dir, overrides, update, retry_failed, json)


@reports_errors
def sample(
    recipe: Recipe,
    run_dir: RunDir = None,
    overrides: Set = None,
    update: Update = False,
    retry_failed: RetryFailed = False,
    json: Json = False,
) -> None:
    """Only the sampling stage: several answers to each prompt, from one or several models or temperatures."""
    _stage("sample", recipe, run_dir, overrides, update, retry_failed, json)


@reports_errors
def judge(
    recipe: Recipe,
    run_dir: RunDir = None,
    overrides: Set = None,
    update: Update = False,
    retry_failed: RetryFailed = False,
    json: Json = False,
) -> None:
    """Only the judging stage: votes on the sampled answers; `cai export --preferences` makes the data set from them."""
    _stage("judge", recipe, run_dir, overrides, update, retry_failed, json)


def _stage(
    name: str,
    recipe: Path,
    run_dir: Path | None,
    overrides: list[str] | None,
    update: bool,
    retry_failed: bool,
    json: bool,
) -> None:
    job, folder = _prepare(recipe, overrides, run_dir)
    from cai import pipeline

    def stage(report: Any) -> dict[str, Any]:
        pipeline.run_stage(name, job, folder, report, update=update, retry_failed=retry_failed)
        return {"run": str(folder)}

    _work(folder, json, stage)


@reports_errors
def export(
    recipe: Recipe,
    run_dir: RunDir = None,
    overrides: Set = None,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="The preference data too, or an error where there are no votes.")
    ] = False,
    format: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Format instead of the recipe's, of preferences; or hf_cai, of SFT. Repeatable. "
            "What was exported before is made anew.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Only the export stage: SFT and preference data, their cards, and metrics, from a run whose rows are finished."""
    pairs = [name for name in format or () if name != "hf_cai"]
    chosen = [f"preferences.formats=[{', '.join(pairs)}]"] if pairs else []
    chosen += ["sft.formats=[hf_cai]"] if "hf_cai" in (format or ()) else []
    job, folder = _prepare(recipe, overrides, run_dir, asks=False)
    # What is asked for once does not become the run's recipe, by which people's labels are merged later.
    once = _prepare(recipe, [*(overrides or ()), *chosen], run_dir, asks=False)[0] if chosen else job
    from cai import pipeline
    from cai.runs import open_run
    from cai.store import Lock

    def stage(report: Any) -> dict[str, Any]:
        with Lock(folder):
            place = open_run(folder)
            mend = f"give the same --set as to the commands that made it, or their recipe: {place.recipe}"
            pipeline.begin(job, place, report, update=False, mend=mend)
            return pipeline.export(once, place, report, compared=True if preferences or pairs else None)

    _work(folder, json, stage)


def _work(folder: Path, json: bool, stage: Any) -> None:
    """Run `stage` with progress on stderr and in the run's log; Ctrl-C says how to go on."""
    from cai.errors import CaiError
    from cai.pipeline import terminable
    from cai.progress import Progress
    from cai.runs import RunFolder
    from cai.store import disk_error

    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = RunFolder(folder).log.open("ab", buffering=0)
    except OSError as error:
        raise disk_error(error, folder) from error
    with log, Progress(log) as progress, terminable():
        try:
            metrics = stage(progress)
        except KeyboardInterrupt:
            progress.finish()
            progress.say("interrupted; everything finished is kept, and the same command goes on")
            raise typer.Exit(130) from None
        except CaiError as error:
            progress.finish()
            progress.note(f"error: {error}")
            raise
    if json:
        print_json(metrics)
    elif "revise" in metrics or "preferences" in metrics:
        from cai.cli.tables import show_metrics, show_preferences

        if "revise" in metrics:
            show_metrics(folder, metrics)
        if "preferences" in metrics:
            show_preferences(folder, metrics)


def _show_estimate(job: Job, folder: Path, json: bool, *, update: bool, retry_failed: bool) -> None:
    from cai.pipeline import dry_run
    from cai.progress import clock

    found = dry_run(job, folder, update=update, retry_failed=retry_failed)
    if json:
        print_json(found.row())
        return
    print(f"prompts            {found.prompts:>12,}")
    if found.unreadable:
        print(f"rows unreadable    {found.unreadable:>12,}  (left out)")
    if found.too_long:
        print(f"prompts too long   {found.too_long:>12,}  (guessed; raise the models' `context` if it can be)")
    print(f"requests to make   {found.requests:>12,}")
    print(f"requests in log    {found.reused:>12,}")
    print(f"tokens to read     {found.prompt_tokens:>12,}  (before prefix caching)")
    print(f"tokens to generate {found.new_tokens:>12,}  (guessed)")
    if found.seconds is not None:
        speed = f"at {found.tokens_per_second:,.0f} tok/s ({found.speed_from})"
        print(f"time               {clock(found.seconds):>12}  {speed}")
    else:
        print(f"time               {'unknown':>12}  {found.speed_from}")
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print("No model was loaded and nothing was written.", file=sys.stderr)


@reports_errors
def status(
    run: Annotated[
        Path | None, typer.Argument(help="A run's folder; all runs below ./runs without.", metavar="[RUN]")
    ] = None,
    json: Json = False,
) -> None:
    """How far runs have come: rows by stage and state. Safe while they run."""
    from cai.runs import open_run, statuses
    from cai.runs import status as status_of

    found = [status_of(open_run(run))] if run is not None else statuses(Path("runs"))
    if json:
        print_json(found[0] if run is not None else found)
        return
    if not found:
        print("no runs below ./runs", file=sys.stderr)
        return
    from cai.cli.tables import show_status

    show_status(found)


@reports_errors
def why(
    run: Run,
    id: Annotated[
        str, typer.Argument(help="Id of a training row, preference, response or prompt, or its first 6 characters.")
    ],
    json: Json = False,
) -> None:
    """Tell the story of one row: every critique, revision and vote, and why it is in the data or is not."""
    from cai import merging
    from cai.errors import InputError
    from cai.pipeline import explain
    from cai.runs import open_run

    merged = merging.explained(open_run(run), id)
    try:
        explanation = explain(run, id)
    except InputError:
        if not merged:
            raise
        explanation = explain(run, merged[0]["comparison_id"])
    if json:
        print_json(explanation.row() | ({"merged": merged} if merged else {}))
        return
    from rich.console import Console

    from cai.stages import why, why_preference

    if isinstance(explanation, why_preference.Decisions):
        Console().print(why_preference.render(explanation))
    else:
        Console().print(why.render(explanation))
    for row in merged:
        for line in merging.told(row):
            Console().print(line, markup=False, highlight=False, soft_wrap=True)


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "run": (
        run,
        examples(
            ("cai run recipe.yaml --dry-run", "requests, tokens and time; loads and writes nothing"),
            ("cai run recipe.yaml", "start it, or go on with it"),
            ("cai run recipe.yaml --set revise.rounds=4 --run-dir runs/four", "the same with one key changed"),
            ("cai run recipe.yaml --set 'models={policy: {backend: scripted}}'", "rehearse without a model"),
            ("cai run recipe.yaml --update", "after editing a principle: only the rows that drew it are made anew"),
            ("cai run runs/NAME/recipe.yaml", "go on by the recipe as it was run, every default spelled out"),
        ),
    ),
    "revise": (
        revise,
        examples(
            ("cai revise recipe.yaml", "drafts, critiques and revisions"),
            ("cai export recipe.yaml", "then the data set"),
        ),
    ),
    "sample": (
        sample,
        examples(
            ("cai sample recipe.yaml", "`sample.sources` in the recipe says from which models, how many, how warm"),
            (
                "cai sample recipe.yaml --set sample.include=[draft,last_revision]",
                "revisions join in",
            ),
        ),
    ),
    "judge": (
        judge,
        examples(
            ("cai judge recipe.yaml", "needs `cai sample` to have finished, and `judge` in the recipe"),
            ("cai judge recipe.yaml --set judge.principles=all", "every principle's vote, instead of one drawn"),
            ("cai export runs/NAME/recipe.yaml --preferences", "then the preference data, by the recipe as it was run"),
        ),
    ),
    "export": (
        export,
        examples(
            ("cai export recipe.yaml --set sft.revisions=last", "another data set from the same rows; asks no model"),
            ("cai export recipe.yaml --preferences", "pairs with soft labels, as TRL takes them"),
            ("cai export recipe.yaml --format ultrafeedback --format openrlhf", "the same pairs for other trainers"),
            ("cai export recipe.yaml --format hf_cai", "critiques and revisions in Hugging Face's columns"),
            ("cai export recipe.yaml --preferences --set preferences.min_margin=0.1", "only where the judge is surer"),
        ),
    ),
    "status": (
        status,
        examples(("cai status", "all runs below ./runs"), ("cai status runs/NAME --json", "one of them, for scripts")),
    ),
    "why": (
        why,
        examples(("cai why runs/NAME 3f0a9c", "the `id` or `prompt_id` of any row of the run, or its beginning")),
    ),
}
"""The functions of this file as commands, with the end of their help."""
