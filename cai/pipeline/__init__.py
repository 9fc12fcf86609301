"""The whole story of a run, in order; the only place that builds backends and turns configuration into parameters.

recipe -> prompts -> revise -> responses, quarantine -> SFT data, card, metrics
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cai.pipeline.ahead import dry_run
from cai.pipeline.begin import begin
from cai.pipeline.job import Job, prepare
from cai.pipeline.results import explain, export
from cai.pipeline.work import build_backends, revise_rows, terminable
from cai.progress import Reporter
from cai.runs import RunFolder
from cai.store import Lock

__all__ = [
    "Job",
    "begin",
    "build_backends",
    "dry_run",
    "explain",
    "export",
    "prepare",
    "revise_rows",
    "run",
    "terminable",
]


def run(
    job: Job, folder: Path, report: Reporter, *, update: bool = False, retry_failed: bool = False
) -> dict[str, Any]:
    """All stages of a recipe; on a folder that holds part of the same run, what is left of them.

    Args:
        update: the inputs have changed on purpose: set the old results aside and make them anew; requests that have not
            changed are taken from the log.
        retry_failed: ask again for rows that were quarantined because a backend failed.

    Returns:
        The content of `metrics.json`.

    Raises:
        RunError: another process works on the folder, or the inputs have changed; names what differs.
        CaiError: the run could not be finished. What was finished is kept; the same command goes on.
    """
    with Lock(folder):
        place = RunFolder(folder)
        begin(job, place, report, update=update)
        revise_rows(job, place, report, retry_failed=retry_failed)
        return export(job, place, report)
