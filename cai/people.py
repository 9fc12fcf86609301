"""People in the loop of a run: from its folder to the parts of `cai.labels` and back; what the commands call."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai import runs
from cai.constitution.load import load_constitution
from cai.errors import InputError
from cai.labels import agreement as agree
from cai.labels import annotators, beside, exchange, export, persons
from cai.labels.events import append_said, effective, news
from cai.labels.items import Item, asked, by_id, is_current, items_of, p_of_a, principles_of
from cai.labels.page.store import said_in
from cai.labels.table import VoteTable, votes_of
from cai.pipeline.compared import read_preferences_of
from cai.records import HumanLabel, Preference
from cai.runs import RunFolder
from cai.store import Lock, encode, given_rows, replacing


def judged(place: RunFolder) -> list[Preference]:
    """The AI judge's preferences of a run.

    Raises:
        InputError: there are none yet.
    """
    if not place.preferences.is_file():
        raise InputError(
            "nothing has been judged",
            where=str(place.path),
            mend="run `cai judge` on the recipe; labels are of its pairs",
        )
    return list(read_preferences_of(place))


def items(place: RunFolder, only: Path | None = None) -> list[Item]:
    """The pairs of a run; with `only`, those that a file of `cai label route` or a merge's quarantine names, each once.

    Raises:
        InputError: nothing has been judged, or the file names a pair that is not there.
    """
    found = by_id(items_of(judged(place)))
    if only is None:
        return list(found.values())
    chosen: dict[str, Item] = {}
    for number, row in given_rows(only):
        name = comparison_of(row)
        if name not in found:
            raise InputError(f"no comparison {name!r} in this run", where=f"{only}:{number}")
        chosen[name] = found[name]
    return list(chosen.values())


def comparison_of(row: Mapping[str, Any]) -> str:
    """The comparison that a row of `cai label route`, or one that a merge set aside, is about; "" for none."""
    inside = row.get("input")
    return str(row.get("comparison_id") or (inside.get("comparison_id", "") if isinstance(inside, Mapping) else ""))


def further(place: RunFolder, path: Path) -> tuple[dict[str, int], dict[str, frozenset[str]]]:
    """Of the pairs of a file that a merge set aside: how many people are still wanted, and who has spoken.

    Wanted is one more than had spoken when it was set aside, on the axis on which people were divided.
    """
    events = events_of(place)
    speaker = {label.id: label.annotator for label in events}
    now: dict[tuple[str, str], set[str]] = {}
    for label in effective(events):
        now.setdefault((label.comparison_id, label.axis), set()).add(label.annotator)
    more: dict[str, int] = {}
    spoke: dict[str, set[str]] = {}
    for _, row in given_rows(path):
        if row.get("stage") == "merge":
            name = comparison_of(row)
            key = name, str(row["input"].get("axis", ""))
            then = {speaker[each] for each in row["input"].get("labels", ()) if each in speaker}
            more[name] = max(more.get(name, 0), len(then) + 1 - len(now.get(key, ())), 0)
            spoke.setdefault(name, set()).update(now.get(key, ()))
    return more, {name: frozenset(who) for name, who in spoke.items()}


def export_tasks(
    run: Path, out: Path, format_name: str, *, only: Path | None = None, limit: int | None = None, hints: bool = False
) -> int:
    """Write a run's pairs to be labelled elsewhere; how many.

    Args:
        hints: with what the judge says, which biases people; only some formats can.
    """
    place = runs.open_run(run)
    chosen = items(place, only)
    judge = {(row.comparison_id, row.axis): p for row in judged(place) if (p := p_of_a(row)) is not None}
    return export.export_tasks(out, chosen[:limit], format_name, judged=judge if hints else None)


def write_interface(run: Path, out: Path, format_name: str) -> None:
    """Write the other tool's labelling interface with a question for each axis that was judged.

    Raises:
        InputError: no such format, or the tool has no such file.
    """
    axes = sorted({row.axis for row in judged(runs.open_run(run))})
    told = exchange.interface(format_name, axes)
    with replacing(out) as file:
        file.write(told.encode())


def export_labels(run: Path, out: Path, format_name: str, *, axis: str | None = None) -> export.ExportReport:
    """Write what people said of a run in a format of another tool; what of it the format could not carry.

    Raises:
        InputError: there are no labels, or the format names no axes and there are several.
    """
    place = runs.open_run(run)
    return export.export_labels(out, effective(events_of(place)), by_id(items(place)), format_name, axis=axis)


def axes_of(place: RunFolder) -> set[str]:
    """The axes that a run knows: those that were judged, and those of its principles."""
    named = {bound.principle.axis for bound in load_constitution(place.path).principles if bound.principle.axis}
    return {row.axis for row in judged(place)} | named


def import_labels(
    run: Path,
    file: Path,
    format_name: str,
    *,
    axis: str = "",
    also: Collection[str] = (),
    strict: bool = False,
    dry_run: bool = False,
) -> exchange.ImportReport:
    """Append what a file says to the run's log of labels. The same file again adds nothing.

    Args:
        axis: of rows that name none.
        also: axes that are known besides the run's.

    Raises:
        InputError: the file cannot be read; with `strict` also at its first broken row, and nothing is written.
        RunError: another process works on the run.
    """
    place = runs.open_run(run)
    with Lock(place.path):
        before = events_of(place)
        people = dict.fromkeys(label.annotator for label in before)
        axes = axes_of(place) | set(also)
        known = by_id(items(place))
        labels, report = exchange.read_labels_from(
            file, format_name, known, axis=axis, axes=axes, people=people, strict=strict
        )
        report.added = len(news(before, labels)) if dry_run else append_said(place.labels, labels)
        report.known = max(0, len({label.id for label in labels}) - report.added)
        return report


def write_demonstrations(run: Path, out: Path) -> int:
    """Write the answers that people rewrote as SFT rows; how many."""
    place = runs.open_run(run)
    rows = list(exchange.demonstrations(effective(events_of(place)), by_id(items(place))))
    with replacing(out) as file:
        for row in rows:
            file.write(encode(row))
    return len(rows)


def events_of(place: RunFolder) -> list[HumanLabel]:
    """All that people said of a run, what its page holds included; see `said_in`."""
    return said_in(place.label_page, place.labels)


def labels_of(place: RunFolder, known: Mapping[str, Item]) -> list[HumanLabel]:
    """The effective labels of a run that are of its pairs, and of the texts that these have now.

    Raises:
        InputError: there are none.
    """
    every = effective(events_of(place))
    found = [label for label in every if is_current(label, known)]
    if not found:
        raise InputError(
            f"all {len(every)} labels are of texts that have changed since"
            if every
            else "nobody has labelled anything",
            where=str(place.path),
            mend="`cai label serve` or `cai label import`",
        )
    return found


def agreement_of_run(run: Path, *, seed: int = 0) -> dict[str, Any]:
    """How far the people of a run agree: by axis and principle, annotators, pairs of them, and beside the judge."""
    place = runs.open_run(run)
    made = judged(place)
    known, principles = by_id(items_of(made)), principles_of(made)
    every = labels_of(place, known)
    labels = annotators.ordinary(every)
    prompt = {name: item.prompt_id for name, item in known.items()}
    left_out = len(effective(events_of(place))) - len(every)
    report: dict[str, Any] = {"run": place.path.name, "left_out": left_out, "axes": {}, "principles": {}}
    suspects: dict[str, dict[str, str]] = {}
    report["gold"] = annotators.on_gold(every, prompt, seed=seed)
    for axis in sorted({label.axis for label in labels}):
        with contextlib.suppress(InputError):
            table = votes_of(labels, axis=axis)
            rates = annotators.gold_rates(label for label in every if label.axis == axis)
            report["axes"][axis] = _agreement(table, prompt, seed, rates)
            suspects.setdefault("random", {}).update(annotators.at_random(table))
    for name in sorted({each for ids in principles.values() for each in ids}):
        inside = [label for label in labels if name in asked(principles, label.comparison_id, label.axis)]
        with contextlib.suppress(InputError):
            table = _over_axes(inside)
            by_task = {task: prompt[task.split(" ")[0]] for task in table.tasks}
            report["principles"][name] = agree.agreement(table, clusters=by_task, seed=seed).row()
    suspects["position"] = annotators.by_position(labels)
    suspects["length"] = annotators.by_length(labels, known)
    report["suspects"] = {kind: found for kind, found in suspects.items() if found}
    p = {(row.comparison_id, row.axis): said for row in made if (said := p_of_a(row)) is not None}
    report["beside_the_judge"] = beside.beside(labels, p, known, principles, seed=seed)
    return report


def votes_of_run(run: Path, *, axis: str = "") -> VoteTable:
    """What people said of a run's pairs on one axis, as votes to be aggregated.

    Raises:
        InputError: nobody has said anything on that axis.
    """
    place = runs.open_run(run)
    labels = annotators.ordinary(labels_of(place, by_id(items(place))))
    there = sorted({label.axis for label in labels})
    if axis not in there:
        named = " or ".join(name or "''" for name in there)
        mend = f"--axis {named}" if there else "answers to gold items are no votes"
        raise InputError(f"nobody has labelled anything on the axis {axis!r}", mend=mend)
    return votes_of(labels, axis=axis)


def agreement_of_table(table: VoteTable, *, seed: int = 0) -> dict[str, Any]:
    """The same of a file of votes, in which nothing is known of texts or judges."""
    return _agreement(table, {}, seed) | {
        "suspects": {"random": found} if (found := annotators.at_random(table)) else {}
    }


def _agreement(
    table: VoteTable, prompt: Mapping[str, str], seed: int, gold: Mapping[str, float] | None = None
) -> dict[str, Any]:
    told = agree.agreement(table, clusters=prompt, seed=seed).row()
    if table.unordered:  # computed over labels in any order it would be a number without a meaning
        told["alpha_ordinal"] = {"value": None, "ci": None, "why": table.unordered}
    rates = annotators.reliability(table, gold)
    each = persons.each_person(table, clusters=prompt, seed=seed)
    told["annotators"] = {name: row | {"reliability": round(rates[name], 4)} for name, row in each.items()}
    told["pairs"] = persons.pairs_of_people(table, clusters=prompt, seed=seed)
    return told


def _over_axes(labels: Sequence[HumanLabel]) -> VoteTable:
    """Votes of several axes in one table, each axis with tasks of its own."""
    from cai.labels.table import SAID

    kept = [label for label in labels if label.verdict in SAID]
    return VoteTable.of(
        [label.comparison_id if not label.axis else f"{label.comparison_id} {label.axis}" for label in kept],
        [label.annotator for label in kept],
        [SAID[label.verdict] for label in kept],
        order=("a", "tie", "b"),
    )
