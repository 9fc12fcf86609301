"""The whole story of a run, in order; the only place that builds backends and turns configuration into parameters.

recipe -> prompts -> revise -> responses, quarantine -> SFT data, card, metrics
                        └> sample -> judge -> votes -> preferences
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cai.errors import RunError
from cai.pipeline.ahead import dry_run
from cai.pipeline.begin import begin, read_prompts
from cai.pipeline.job import Job, prepare, recorded
from cai.pipeline.results import explain, export
from cai.pipeline.stages import Answers, judge_stage, revise_stage, sample_stage
from cai.pipeline.work import Stage, Workshop, finish_rows, terminable
from cai.progress import Reporter
from cai.runs import RunFolder, unfinished
from cai.store import Lock

__all__ = ["Job", "begin", "dry_run", "explain", "export", "prepare", "recorded", "run", "run_stage", "terminable"]


def run(
    job: Job, folder: Path, report: Reporter, *, update: bool = False, retry_failed: bool = False
) -> dict[str, Any]:
    """All stages of a recipe; on a folder that holds part of the same run, what is left of them.

    Args:
        update: the inputs have changed on purpose: set the old results aside and make them anew; requests that have not
            changed are taken from the log.
        retry_failed: ask again for rows that were quarantined because a backend failed, or did not fit the context.

    Returns:
        The content of `metrics.json`.

    Raises:
        RunError: another process works on the folder, or the inputs have changed; names what differs.
        CaiError: the run could not be finished. What was finished is kept; the same command goes on.
    """
    with Lock(folder):
        place = RunFolder(folder)
        begin(job, place, report, update=update)
        with Workshop(job, report) as workshop:
            for stage in ("revise", "sample", "judge") if job.judge else ("revise",):
                _finish(stage, job, place, report, workshop, retry_failed=retry_failed)
        return export(job, place, report)


def run_stage(
    stage: str, job: Job, folder: Path, report: Reporter, *, update: bool = False, retry_failed: bool = False
) -> None:
    """One stage alone: `revise`, `sample` or `judge`; see `run`.

    Raises:
        RunError: a stage that it needs is not finished.
    """
    with Lock(folder):
        place = RunFolder(folder)
        begin(job, place, report, update=update)
        needed = {"judge": ["sample"], "sample": [], "revise": []}[stage]
        if job.sample.include and stage != "revise":
            needed.append("revise")
        for before in needed:
            left = unfinished(place, before)
            if left:
                raise RunError(
                    f"{left} rows of the stage `{before}` are not finished",
                    where=str(folder),
                    mend=f"run `cai {before}` on the recipe first, or `cai run` for all stages",
                )
        with Workshop(job, report) as workshop:
            _finish(stage, job, place, report, workshop, retry_failed=retry_failed)


def _finish(
    stage: str, job: Job, place: RunFolder, report: Reporter, workshop: Workshop, *, retry_failed: bool
) -> None:
    def finish(found: Stage) -> None:
        finish_rows(found, lambda: read_prompts(place), job, place, report, workshop, retry_failed=retry_failed)

    if stage == "revise":
        finish(revise_stage(job, place))
    elif stage == "sample":
        finish(sample_stage(job, place))
    else:
        with Answers.open(job, place) as answers:
            finish(judge_stage(job, place, answers))
