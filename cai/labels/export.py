"""Pairs and labels out, in the formats of other tools.

What a format cannot carry is reported, not dropped in silence.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.labels import formats
from cai.labels.items import Item, is_current
from cai.labels.said import Said
from cai.labels.shown import order_of
from cai.records import HumanLabel
from cai.store import encode, replacing

LOSSES: Mapping[str, str] = {
    "axis": "labels whose axis the file does not name; import it with --axis",
    "other_axis": "labels on axes that the format does not know; left out",
    "strength": "labels whose strength (1 to 7) is lost, rounded or, where none was given, made up",
    "seconds": "labels whose time taken is lost",
    "note": "notes that are lost",
    "edit": "edited answers that are lost (--demonstrations writes them)",
    "ts": "labels whose time is lost",
    "gold": "labels of gold items that look like any other",
    "order": "labels of which the file does not say, or nobody knows, which answer stood left",
    "both_bad": "verdicts `both bad`, written as ties",
    "abstain": "abstentions; left out",
    "stale": "labels of texts that have changed since, or of pairs that are not in the run; left out",
    "extra": "labels with more in them (ratings, rankings) than a verdict on a pair",
}
"""What an export can lose."""


@dataclass
class ExportReport:
    """What was written, and what was lost: counts by the words of `LOSSES`."""

    rows: int = 0
    labels: int = 0
    lost: Counter[str] = field(default_factory=Counter)

    def row(self) -> dict[str, Any]:
        lost = {name: {"count": self.lost[name], "what": LOSSES[name]} for name in LOSSES if self.lost[name]}
        return {"rows": self.rows, "labels": self.labels, "lost": lost}


def export_tasks(
    path: Path,
    items: Iterable[Item],
    format_name: str,
    *,
    judged: Mapping[tuple[str, str], float] | None = None,
    model: str = "judge",
) -> int:
    """Write items to be labelled elsewhere; how many.

    The side on which each answer stands is drawn by hash and written into the row (`order`), so that position can be
    told from preference afterwards.

    Args:
        judged: the judge's probability of a, by comparison and axis, to be shown to people where the format can
            (`guess`). It biases them, so by default they see nothing of it.

    Raises:
        InputError: no such format, nothing to write, or the format has no place for the judge's verdicts.
    """
    chosen = formats.load(format_name)
    guess = getattr(chosen, "guess", None)
    if judged is not None and guess is None:
        can = [name for name in formats.names() if hasattr(formats.load(name), "guess")]
        raise InputError(f"{format_name} has no place for predictions", mend=f"one of: {', '.join(can)}")
    by_pair: dict[str, dict[str, float]] = {}
    for (comparison_id, axis), p in (judged or {}).items():
        by_pair.setdefault(comparison_id, {})[axis] = p
    rows = []
    for item in items:
        order = order_of(item)
        row = chosen.task(item, order)
        if judged is not None and guess is not None:
            row = guess(row, order, by_pair.get(item.comparison_id, {}), model)
        rows.append(row)
    if not rows:
        raise InputError("there is nothing to label", where=str(path))
    write_rows(path, rows, chosen.SUFFIX)
    return len(rows)


def export_labels(
    path: Path, labels: Iterable[HumanLabel], items: Mapping[str, Item], format_name: str, *, axis: str | None = None
) -> ExportReport:
    """Write effective labels in a format of another tool; what of them it could not carry.

    People who saw the answers in different orders come in rows of their own, so that nothing has to be turned.

    Args:
        axis: only labels on it.

    Raises:
        InputError: no such format, nothing to write, or labels of several axes and a format that names none.
    """
    chosen, report = formats.load(format_name), ExportReport()
    known: Mapping[str, str] | None = getattr(chosen, "AXES", None)
    kept: list[HumanLabel] = []
    for label in labels:
        if axis is not None and label.axis != axis:
            continue
        if not is_current(label, items):
            report.lost["stale"] += 1
        elif label.verdict == "abstain" and "abstain" not in chosen.CARRIES:
            report.lost["abstain"] += 1
        elif known is not None and label.axis not in known.values():
            report.lost["other_axis"] += 1
        else:
            kept.append(label)
    axes = sorted({label.axis for label in kept})
    if len(axes) > 1 and "axis" not in chosen.CARRIES:
        there = " or ".join(name or "''" for name in axes)
        raise InputError(f"{format_name} names no axes, and there are labels on {len(axes)}", mend=f"--axis {there}")
    if not kept:
        raise InputError("there are no labels to write", where=str(path))
    sheets: dict[tuple[str, str], list[Said]] = {}
    for label in kept:
        report.lost.update(_lost(label, chosen.CARRIES, getattr(chosen, "LEVELS", None)))
        sheets.setdefault((label.comparison_id, label.shown_order), []).append(said_of(label))
    rows = [
        row
        for (comparison_id, order), said in sheets.items()
        for row in chosen.labelled(items[comparison_id], order or "ab", said)
    ]
    write_rows(path, rows, chosen.SUFFIX)
    report.rows, report.labels = len(rows), len(kept)
    return report


def said_of(label: HumanLabel) -> Said:
    """A label in the order in which the answers were shown; in the comparison's own where that is not known."""
    turned = label.shown_order == "ba"
    sides = {"a": "right" if turned else "left", "b": "left" if turned else "right"}
    return Said(
        pair=label.comparison_id,
        verdict=sides.get(label.verdict, label.verdict),
        annotator=label.annotator,
        strength=8 - label.strength if turned and label.strength is not None else label.strength,
        order=label.shown_order,
        axis=label.axis,
        seconds=label.seconds,
        note=label.note,
        ts=label.ts,
        status=label.status,
        edit=label.edit,
        gold=sides.get(right := str(label.extra.get("gold", "unknown")), right) if label.gold else "",
    )


def _lost(label: HumanLabel, carries: frozenset[str], levels: Sequence[int] | None) -> Iterator[str]:
    has = {
        "axis": label.axis != "",
        "strength": label.strength is not None,
        "seconds": label.seconds is not None,
        "note": label.note != "",
        "edit": label.edit != "",
        "ts": label.ts != "",
        "gold": label.gold,
        "order": label.shown_order != "",
        "both_bad": label.verdict == "both_bad",
        "extra": bool(label.extra.keys() - {"gold", "traps"}),
    }
    yield from (name for name, there in has.items() if there and name not in carries)
    if levels is not None and label.verdict not in ("both_bad", "abstain") and label.strength not in levels:
        yield "strength"
    if label.shown_order == "" and "order" in carries:
        yield "order"


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], suffix: str) -> None:
    """Rows as one JSON array, JSONL or CSV; replaced atomically."""
    with replacing(path) as file:
        if suffix == "json":
            told = json.dumps(rows, ensure_ascii=False, indent=1)
            if any("\ud800" <= letter <= "\udfff" for letter in told):  # half a letter: UTF-8 cannot carry it
                told = json.dumps(rows, indent=1)
            file.write(told.encode() + b"\n")
        elif suffix == "jsonl":
            for row in rows:
                file.write(encode(row))
        else:
            out = io.StringIO(newline="")
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            file.write(out.getvalue().encode("utf-8", "replace"))
