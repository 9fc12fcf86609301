"""What judging leaves: samples, groups, votes, preferences, and the data sets made of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.errors import RunError
from cai.evals.calibration import Calibration
from cai.pipeline.begin import read_prompts
from cai.pipeline.job import Job
from cai.pipeline.reading import recount
from cai.pipeline.stages import Answers
from cai.preferences import formats, write_preferences
from cai.preferences.card import PreferenceCardInfo, preference_card
from cai.progress import Reporter
from cai.records import Preference, Vote
from cai.runs import RunFolder
from cai.stages.card import ModelUsed
from cai.stages.prefer import preferences, rankings
from cai.stages.sample import Gathered
from cai.stages.select import select
from cai.stages.votestats import VoteReport, VoteTally
from cai.store import Log, encode, read_rows, replacing, write_text


def export_preferences(job: Job, place: RunFolder, report: Reporter) -> dict[str, Any]:
    """Write what the votes of a run come to: a pure function of its journals and the recipe, in prompt order.

    Data sets are written in the recipe's formats, and anew in those of earlier exports.

    Returns:
        The parts `sample`, `judge` and `preferences` of `metrics.json`.

    Raises:
        RunError: the recipe has no judge, or rows are not finished.
    """
    if job.judge is None:
        raise RunError("the recipe has no judge", where="judge", mend="add a block `judge: {}`; the defaults work")
    counts: Counter[str] = Counter()
    sizes: Counter[int] = Counter()
    tally, usage, failed = VoteTally(job.rule), Counter[str](), Counter[str]()
    failed["unreadable"] = recount(place.read_manifest() or {}).get("unreadable", 0)
    with contextlib.ExitStack() as stack:
        answers = stack.enter_context(Answers.open(job, place))
        journal = stack.enter_context(Log(place.judged, read_only=True))
        sampled = stack.enter_context(Log(place.sampled, read_only=True))
        samples, groups, votes_file, made = (
            stack.enter_context(replacing(path))
            for path in (place.samples, place.groups, place.votes, place.preferences)
        )
        for prompt in read_prompts(place):
            row = journal.get(prompt.id)
            if row is None:
                raise RunError(
                    f"the row {prompt.id} is not judged", where=str(place.path), mend="run `cai judge` first"
                )
            if row["quarantined"]:
                # Where sampling failed, judging found only that there is nothing to compare.
                first = (sampled.get(prompt.id) or {}).get("quarantined")
                failed[(first or row["quarantined"])["reason"]] += 1
            for response in answers.sampled(prompt):
                counts["responses"] += 1
                usage.update(response.flags)
                samples.write(encode(response.row()))
            gathered = answers.gathered(prompt)
            if row["group"] != (gathered.group.id if gathered.group else None) and not row["quarantined"]:
                raise RunError(
                    f"the answers to {prompt.id} have changed since they were judged",
                    where=str(place.path),
                    mend="`cai judge` asks what is new",
                )
            counts["duplicates"] += len(gathered.duplicates)
            counts["left_out"] += len(gathered.left_out)
            votes = [Vote.from_row(each) for each in row["votes"]]
            labels: tuple[Preference, ...] = ()
            if gathered.group is not None and votes:
                labels = preferences(gathered.group, votes, job.rule, axes=job.judge.axes or ("",))
            groups.write(encode(_group_row(prompt.id, gathered, votes, labels)))
            for vote in votes:
                votes_file.write(encode(vote.row()))
            if gathered.group is None or not votes:
                continue
            sizes[len(gathered.group.candidates)] += 1
            tally.add(gathered.group, votes, labels)
            for label in labels:
                made.write(encode(label.row()))
    told = tally.report()
    left_out: dict[str, int] = {}
    written = {}
    asked = job.loaded.recipe.preferences.formats
    for name in to_write(asked, formats.names(), place.preference_data.joinpath):
        left_out.clear()
        folder = place.preference_data / name
        found = write_preferences(
            folder, select(lambda: read_preferences_of(place), job.select, left_out=left_out), name
        )
        write_text(folder / "README.md", preference_card(_card(job, found, told, left_out, +failed)))
        written[name] = found.row()
        report.say(f"{found.rows} preference rows in {folder}")
    return {
        "sample": {
            **dict(sorted(counts.items())),
            "flags": dict(sorted(usage.items())),
            "groups": {str(size): number for size, number in sorted(sizes.items())},
        },
        "judge": told.row(),
        "preferences": {
            **_summary(place),
            "left_out": left_out,
            "formats": written,
            **({"calibration": _applied(job.calibration)} if job.calibration else {}),
        },
    }


def to_write(asked: Iterable[str], known: Iterable[str], folder: Callable[[str], Path]) -> tuple[str, ...]:
    """The formats that an export writes: those asked for, then the other `known` ones that have a folder already.

    Left alone, such a folder would keep rows that are no longer chosen, or are in the other split by now. It is not
    removed, since somebody reads it: `cai train` does where it is `trl`, whatever was exported for others since.
    """
    return tuple(dict.fromkeys((*asked, *(name for name in known if folder(name).is_dir()))))


def _applied(calibration: Calibration) -> dict[str, Any]:
    """Which calibration the labels went through."""
    on = {key: calibration.fitted_on.get(key) for key in ("file", "n")}
    return {"name": calibration.name, "method": calibration.method, **calibration.parameters, "fitted_on": on}


def read_preferences_of(place: RunFolder) -> Iterator[Preference]:
    """The preferences of a run, in its order; the unusable ones too."""
    for number, row in enumerate(read_rows(place.preferences), start=1):
        yield Preference.from_row(row, where=f"{place.preferences}:{number}")


def _group_row(
    prompt_id: str, gathered: Gathered, votes: Sequence[Vote], labels: Sequence[Preference]
) -> dict[str, Any]:
    group = gathered.group
    return {
        "schema": 1,
        "id": group.id if group else None,
        "prompt_id": prompt_id,
        "responses": [candidate.id for candidate in group.candidates] if group else [],
        "rankings": {axis: list(ids) for axis, ids in rankings(group, votes, labels).items()} if group else {},
        "duplicates": dict(gathered.duplicates),
        "left_out": list(gathered.left_out),
    }


def _summary(place: RunFolder) -> dict[str, Any]:
    """Counts over all preferences, before any is left out."""
    status: Counter[str] = Counter()
    axes: Counter[str] = Counter()
    margin = longer = decided = 0.0
    for each in read_preferences_of(place):
        status[each.status] += 1
        axes[each.axis] += 1
        if each.status == "ok":
            decided += 1
            margin += each.margin
            longer += (len(each.chosen) > len(each.rejected)) + 0.5 * (len(each.chosen) == len(each.rejected))
    return {
        "by_status": dict(sorted(status.items())),
        "by_axis": dict(sorted(axes.items())),
        "mean_margin": round(margin / decided, 4) if decided else None,
        "chosen_is_longer": round(longer / decided, 4) if decided else None,
    }


def _card(
    job: Job, counts: Any, told: VoteReport, left_out: Mapping[str, int], failed: Mapping[str, int]
) -> PreferenceCardInfo:
    recipe = job.loaded.recipe
    assert recipe.judge is not None
    shown = {"formats", "calibration", "min_margin", "ties", "balance"}
    changed = recipe.preferences.model_dump(exclude_defaults=True, exclude=shown)
    used = [(f"sampled: {source.name}", source.model) for source in job.sample.sources]
    used += [(f"judge: {role}", role) for role in job.judge_roles]
    prints = [(label, job.fingerprints[role]) for label, role in used]
    models = [ModelUsed(label, print_.split("@")[0], print_) for label, print_ in prints]
    return PreferenceCardInfo(
        name=f"{recipe.sft.title or recipe.name}: preferences",
        counts=counts,
        recipe={
            "judge": recipe.judge.method,
            **{f"judge: {name}": value for name, value in recipe.judge.options.items()},
            "principles per comparison": recipe.judge.principles,
            "axes": ", ".join(recipe.judge.axes) or "one verdict over all",
            "constitution": job.constitution.name,
            "least margin": recipe.preferences.min_margin,
            "ties": recipe.preferences.ties,
            "balance": recipe.preferences.balance,
            **({"calibration": job.calibration.name} if job.calibration else {}),
            **{name.replace("_", " "): value for name, value in changed.items()},
            "seed": recipe.seed,
        },
        principles={bound.id: bound.principle.title for bound in job.constitution.judging},
        judges=models,
        votes=told,
        license=recipe.sft.license,
        prompt_licenses=recipe.sft.prompt_licenses,
        language=recipe.sft.language,
        left_out=dict(left_out),
        failed=dict(sorted(failed.items())),
    )
