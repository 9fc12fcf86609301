"""What a finished run leaves: responses, quarantine, SFT data with its card, metrics; and the story of a row."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai import runs
from cai.config import load_recipe
from cai.constitution.load import load_constitution
from cai.errors import InputError, RunError
from cai.metrics import ReviseMetrics
from cai.pipeline.begin import read_prompts
from cai.pipeline.compared import export_preferences, read_preferences_of, to_write
from cai.pipeline.job import Job, prepare
from cai.pipeline.reading import recount
from cai.pipeline.stages import quarantine_of
from cai.progress import Reporter
from cai.records import Quarantined, Response, Vote
from cai.runs import ResponsesOf, RunFolder
from cai.stages import why
from cai.stages.card import CardInfo, ModelUsed, dataset_card
from cai.stages.export import sft_rows, write_sft
from cai.stages.hf_cai import NAME as HF_CAI
from cai.stages.hf_cai import hf_cai_rows, write_hf_cai
from cai.stages.select import choose, surplus
from cai.stages.why import Explanation
from cai.stages.why_preference import Decisions, decisions
from cai.store import Log, encode, read_rows, replacing, write_json, write_text


def export(job: Job, place: RunFolder, report: Reporter, *, compared: bool | None = None) -> dict[str, Any]:
    """Write the results of a run whose rows are finished: a pure function of the journals, in prompt order.

    Data sets are written in the recipe's formats, and anew in those of earlier exports.

    Args:
        compared: whether to write what judging came to as well; None: where the recipe has a judge and it has finished.
            Where it is asked for, nothing was revised and no revision is to be compared, only this is written.

    Raises:
        RunError: rows are not finished; names the stage.
    """
    revised = not compared or bool(job.sample.include) or runs.begun(place.journal)
    if compared is None:
        compared = job.judge is not None and runs.unfinished(place, "judge") == 0
    left = runs.unfinished(place, "revise")
    if left and revised:
        raise RunError(
            f"{left} rows of the stage `revise` are not finished",
            where=str(place.path),
            mend="run `cai revise` on the recipe first, or `cai run` for all stages",
        )
    result: dict[str, Any] = {"prompts": recount(place.read_manifest() or {})}
    with contextlib.ExitStack() as stack:
        journals = {"revise": place.journal} if revised else {}
        journals |= {"sample": place.sampled, "judge": place.judged} if compared else {}
        opened = {
            stage: stack.enter_context(Log(path, read_only=True)) for stage, path in journals.items() if path.is_file()
        }
        failed = _quarantine(place, opened)
        if "revise" in opened:
            result |= _export_sft(job, place, opened["revise"], failed["revise"], report)
    if compared:
        told_of = export_preferences(job, place, report)
        for stage in ("sample", "judge"):
            told_of[stage]["quarantined"] = dict(sorted(failed[stage].items()))
        result |= told_of
    write_json(place.metrics, result)
    return result


def _quarantine(place: RunFolder, journals: Mapping[str, Log]) -> dict[str, Counter[str]]:
    """Write the rows that gave nothing, in prompt order; returns their reasons by stage."""
    found: dict[str, Counter[str]] = {stage: Counter() for stage in ("revise", "sample", "judge")}
    with replacing(place.quarantine) as file:
        for bad in _unreadable(place):
            file.write(encode(bad))
        for prompt in read_prompts(place):
            for failed in quarantine_of(journal.get(prompt.id) for journal in journals.values()):
                file.write(encode(failed))
                found[failed["stage"]][failed["reason"]] += 1
    return found


def _export_sft(job: Job, place: RunFolder, journal: Log, reasons: Counter[str], report: Reporter) -> dict[str, Any]:
    """Write responses, SFT data and its card; the parts `revise`, `sft` and `left_out` of `metrics.json`."""
    metrics = ReviseMetrics()
    left_out: dict[str, int] = {}
    with replacing(place.responses) as responses:
        for prompt in read_prompts(place):
            row = journal.get(prompt.id)
            if row is None:
                raise RunError(
                    f"the row {prompt.id} is not finished", where=str(place.path), mend="run `cai revise` first"
                )
            for response in row["responses"]:
                responses.write(encode(response))
            metrics.add(Response.from_row(response) for response in row["responses"])
    counts = write_sft(place.sft, sft_rows(read_prompts(place), ResponsesOf(journal), job.sft, left_out=left_out))
    told = metrics.row()
    failed = Counter(reasons)
    failed["unreadable"] += recount(place.read_manifest() or {}).get("unreadable", 0)
    card = _card(job, counts, dict(sorted((+failed).items())), told, left_out)
    write_text(place.sft / "README.md", dataset_card(card))
    report.say(f"{counts.rows} SFT rows in {place.sft}")
    others: dict[str, Any] = {}

    def folder_of(name: str) -> Path:
        return place.path / f"sft_{name}"  # not inside `sft`, which `datasets` loads as it is

    for name in to_write(job.loaded.recipe.sft.formats, [HF_CAI], folder_of):
        not_carried: dict[str, int] = {}
        made = hf_cai_rows(read_prompts(place), ResponsesOf(journal), job.sft, job.constitution, left_out=not_carried)
        folder = folder_of(name)
        others[name] = {"by_split": write_hf_cai(folder, made), "left_out": dict(sorted(not_carried.items()))}
        report.say(f"{sum(others[name]['by_split'].values())} SFT rows in {folder}")
    return {
        **({"sft_formats": others} if others else {}),
        "revise": {**told, "quarantined": dict(sorted(reasons.items()))},
        "sft": counts.row(),
        "left_out": left_out,
    }


def _unreadable(place: RunFolder) -> Iterator[dict[str, Any]]:
    """Rows of the prompts' files that could not be read."""
    return read_rows(place.unreadable) if place.unreadable.is_file() else iter(())


def _card(
    job: Job, counts: Any, quarantined: Mapping[str, int], told: Mapping[str, Any], left_out: Mapping[str, int]
) -> CardInfo:
    recipe, options = job.loaded.recipe, job.loaded.recipe.revise
    models: dict[str, ModelUsed] = {}
    for role in job.plan.roles:  # in making these data a judge and further samplers took no part
        print_ = job.fingerprints[role]
        known = models.get(print_)
        roles = f"{known.role}, {role}" if known else role
        models[print_] = ModelUsed(roles, print_.split("@")[0], print_)
    flags: Counter[str] = Counter()
    for number in told["rounds"].values():
        flags.update(number["flags"])
    return CardInfo(
        name=recipe.sft.title or recipe.name,
        counts=counts,
        constitution=job.constitution,
        models=tuple(models.values()),
        recipe={
            "rounds": options.rounds,
            "principles per critique": options.principles_per_critique,
            "critiques": "yes" if options.critique else "no",
            "prompt style": options.style,
            "system prompt": job.constitution.system_prompt.strip() or "none",
            "revisions trained on": recipe.sft.revisions,
            "flags that keep an answer out": ", ".join(recipe.sft.drop_flags) or "none",
            "temperature": options.revision.temperature,
            "seed": recipe.seed,
        },
        license=recipe.sft.license,
        prompt_licenses=recipe.sft.prompt_licenses,
        language=recipe.sft.language,
        quarantined=quarantined,
        flags=dict(sorted(flags.items())),
        left_out=left_out,
    )


def explain(folder: Path, id: str) -> Explanation | Decisions:
    """The story of one prompt, response or training row of a run; or of a preference, or an answer that was compared.

    Raises:
        InputError: no such run, or no such id in it.
    """
    place = runs.open_run(folder)
    # The run's own copy: the constitution may have been edited since.
    job = prepare(load_recipe(place.recipe), models=False, constitution=load_constitution(place.path))
    titles = {bound.id: bound.principle.title for bound in job.constitution.principles}
    prompt_ids = [prompt.id for prompt in read_prompts(place)]
    with contextlib.ExitStack() as stack:
        journals = [
            stack.enter_context(Log(path, read_only=True))
            for path in (place.journal, place.sampled, place.judged)
            if path.is_file()
        ]
        rows = (quarantine_of(journal.get(prompt_id) for journal in journals) for prompt_id in prompt_ids)
        quarantined = [Quarantined.from_row(row) for each in rows for row in each]
        quarantined += [Quarantined.from_row(row) for row in _unreadable(place)]

        def of(path: Path) -> Mapping[str, Sequence[Response]]:
            journal = next((each for each in journals if each.path == path), None)
            return {} if journal is None else ResponsesOf(journal, [each for each in prompt_ids if each in journal])

        def story(samples: Mapping[str, Sequence[Response]]) -> Explanation:
            return why.explain(
                id, read_prompts(place), of(place.journal), quarantined, samples=samples, options=job.sft, titles=titles
            )

        # What was compared is told by its preferences, unless the revise stage knows it; other samples by themselves.
        if place.journal.is_file():
            with contextlib.suppress(InputError):
                return story({})
        return _decisions(job, place, id, titles) or story(of(place.sampled))


def _decisions(job: Job, place: RunFolder, id: str, titles: Mapping[str, str]) -> Decisions | None:
    if not place.preferences.is_file():
        return None
    made = list(read_preferences_of(place))
    choices = choose(made, job.select, surplus=surplus(made, job.select))
    return decisions(id, choices, _votes_of(place), titles=titles)


def _votes_of(place: RunFolder) -> Iterator[Vote]:
    for number, row in enumerate(read_rows(place.votes), start=1):
        yield Vote.from_row(row, where=f"{place.votes}:{number}")
