"""Files of people's labels in, with a report of everything in them that would have become wrong data in silence.

The other way is `cai.labels.export`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.labels import formats
from cai.labels.events import folded, label_id
from cai.labels.files import rows_of
from cai.labels.items import Item
from cai.labels.said import Said, is_time
from cai.labels.shown import prompt_text
from cai.records import HumanLabel

TRAPS: Mapping[str, str] = {
    "broken": "rows that say nothing readable; left out",
    "unknown_pair": "verdicts on pairs that are not in this run; left out",
    "ambiguous": "verdicts without a pair's id on answers that several prompts share; left out",
    "unknown_axis": "verdicts on an axis that this run does not know; kept, and merged by themselves (see --axis)",
    "unknown_result": "parts of an answer of a kind that is not known; left out, the verdict kept",
    "text_changed": "verdicts on texts, or a prompt, that have changed since; kept, and not counted",
    "status_unknown": "verdicts whose status the export does not carry: discarded ones look valid",
    "id_overwritten": "rows whose id is the annotation's; the pair was found by its texts",
    "sides_unknown": "verdicts of which nothing says which answer stood left; left is taken for a",
    "sides_turned": "verdicts given with the answers the other way round; turned back",
    "duplicate_person": "names that differ only in capitals or spaces; taken as one person",
    "repeated": "verdicts of one person on one pair that a later row replaces",
    "too_fast": "verdicts given faster than anyone reads; kept, and flagged",
    "time_unknown": "verdicts whose time cannot be read; taken as without one",
    "not_counted": "verdicts that were skipped, discarded or never submitted; kept as such",
}
"""What an import can meet, and what is done about it."""

FASTEST = 15.0
"""Words a second above which nobody reads: three times a fast reader's 300 words a minute."""

EXAMPLES = 5


@dataclass
class ImportReport:
    """What an import met.

    Attributes:
        rows: of the file; `said` verdicts in them; `added` new events, `known` those that the log had already.
        traps: counts by the words of `TRAPS`; `examples` where the first few were met.
        notes: of the whole file.
    """

    rows: int = 0
    said: int = 0
    added: int = 0
    known: int = 0
    edits: int = 0
    traps: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    annotators: Counter[str] = field(default_factory=Counter)

    def met(self, trap: str, where: str) -> None:
        self.traps[trap] += 1
        kept = self.examples.setdefault(trap, [])
        if len(kept) < EXAMPLES:
            kept.append(where.encode("utf-8", "replace").decode())  # a lone surrogate cannot be printed

    def row(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "verdicts": self.said,
            "added": self.added,
            "known": self.known,
            "edits": self.edits,
            "annotators": dict(sorted(self.annotators.items())),
            "traps": {
                trap: {"count": count, "what": TRAPS[trap], "examples": self.examples[trap]}
                for trap, count in sorted(self.traps.items())
            },
            "notes": self.notes,
        }


def interface(format_name: str, axes: Sequence[str]) -> str:
    """A labelling interface whose questions this format reads back on these axes.

    Raises:
        InputError: no such format, or it has none.
    """
    made = getattr(formats.load(format_name), "config", None)
    if made is None:
        can = [name for name in formats.names() if hasattr(formats.load(name), "config")]
        raise InputError(f"{format_name} has no file for its interface", mend=f"one of: {', '.join(can)}")
    return str(made(axes))


# --- import -----------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """What verdicts are looked up in.

    Attributes:
        by_texts: items by their two answers, sorted; several where prompts share answers.
        axes: those that the run knows; None: any will do.
        people: spelling by name without capitals.
    """

    items: Mapping[str, Item]
    axes: Collection[str] | None
    people: dict[str, str]
    by_texts: dict[tuple[str, str], list[Item]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for item in self.items.values():
            self.by_texts.setdefault(_texts(item.a.text, item.b.text), []).append(item)

    def find(self, said: Said) -> tuple[Item | None, str]:
        """The item, or why there is none. By its id; else by its answers and its prompt, where the file has that."""
        if said.pair in self.items:
            return self.items[said.pair], ""
        found = self.by_texts.get(_texts(said.left or "", said.right or ""), [])
        if said.prompt is not None:
            found = [item for item in found if _same_prompt(said.prompt, item)]
        if len(found) > 1:
            return None, "ambiguous"
        return (found[0], "") if found else (None, "unknown_pair")

    def axis(self, told: str) -> str:
        """The run's spelling of an axis, where that can be told: a tool may write it otherwise."""
        meant = [axis for axis in self.axes or () if _spelled(axis) == _spelled(told)]
        return told if told in meant or len(meant) != 1 else meant[0]


def read_labels_from(
    path: Path,
    format_name: str,
    items: Mapping[str, Item],
    *,
    axis: str = "",
    axes: Collection[str] | None = None,
    people: Iterable[str] = (),
    strict: bool = False,
) -> tuple[list[HumanLabel], ImportReport]:
    """The events that a file holds, in its order, and what was met in reading it.

    Args:
        items: by comparison id; verdicts on others are reported and left out.
        axis: of rows that name none.
        axes: those that the run knows; others are reported. None: any will do.
        people: names that the run knows already; another spelling of one is that one.
        strict: raise at the first row that is broken, or about an unknown pair or axis.

    Raises:
        InputError: the file cannot be read, no such format, or `strict`.
    """
    chosen, report = formats.load(format_name), ImportReport()
    spelling: dict[str, str] = {}
    for name in people:
        spelling.setdefault(folded(name), name)
    run = _Run(items, axes, spelling)
    labels: list[HumanLabel] = []
    last: dict[tuple[str, str, str], str] = {}
    for number, row in rows_of(path):
        where = f"{path.name}:{number}"
        report.rows += 1
        try:
            if isinstance(row, InputError):
                raise row
            found = chosen.read(row)
            notes = chosen.notes(row)
        except InputError as error:
            if strict:
                raise InputError(error.what, where=where, mend=error.mend or "or import without --strict") from error
            report.met("broken", f"{where}: {error.what}")
            continue
        report.notes += [note for note in notes if note not in report.notes]
        for said in found:
            report.said += 1
            item, why = run.find(said)
            if item is None:
                if strict:
                    several = "has answers that several prompts share" if why == "ambiguous" else "is not in this run"
                    raise InputError(f"is about a pair that {several}", where=where)
                report.met(why, f"{where}: {said.pair or 'no pair_id'}")
                continue
            label = _label(said, item, run, report, where, axis, path.name)
            if axes is not None and label.axis not in axes:
                known = ", ".join(name or "no axis" for name in sorted(axes))
                what = f"the axis is {label.axis!r}" if label.axis else "names no axis"
                if strict:
                    raise InputError(f"{what}; this run has {known}", where=where, mend="--axis, or --also-axis")
                report.met("unknown_axis", f"{where}: {what}; this run has {known}")
            key = (label.annotator, label.comparison_id, label.axis)
            if key in last and last[key] != label.id:
                report.met("repeated", f"{where}: {label.annotator}")
            last[key] = label.id
            report.annotators[label.annotator] += 1
            report.edits += bool(label.edit)
            labels.append(label)
    return labels, report


def _label(said: Said, item: Item, run: _Run, report: ImportReport, where: str, axis: str, source: str) -> HumanLabel:
    for trap in said.traps:
        report.met(trap, where)
    order, changed = _order(said, item)
    if not order:
        report.met("sides_unknown", where)
    if order == "ba":
        report.met("sides_turned", where)
    if changed:
        report.met("text_changed", where)
    who = _person(said.annotator, run.people, report, where)
    words = sum(len(text.split()) for text in (prompt_text(item.messages), item.a.text, item.b.text))
    if said.seconds is not None and said.status == "submitted" and said.seconds * FASTEST < words:
        report.met("too_fast", f"{where}: {said.seconds:g} s for {words} words")
    if said.status != "submitted":
        report.met("not_counted", f"{where}: {said.status}")
    ts = said.ts if is_time(said.ts) else ""
    if ts != said.ts:
        report.met("time_unknown", f"{where}: {said.ts[:40]!r}")
    turned = order == "ba"
    own = {"left": "b" if turned else "a", "right": "a" if turned else "b"}
    verdict = own.get(said.verdict, said.verdict)
    strength = said.strength if said.strength is None or not turned else 8 - said.strength
    named = run.axis(said.axis or axis)
    extra = dict(said.extra) | ({"traps": list(said.traps)} if said.traps else {})
    if said.gold not in ("", "unknown"):
        extra["gold"] = own.get(said.gold, said.gold)
    return HumanLabel(
        id=label_id(item.comparison_id, named, who, verdict, strength, said.status, ts, said.key, said.edit),
        comparison_id=item.comparison_id,
        group_id=item.group_id,
        axis=named,
        annotator=who,
        verdict=verdict,
        strength=strength,
        shown_order=order,
        seconds=said.seconds,
        note=said.note,
        status=said.status,
        ts=ts,
        edit=said.edit,
        gold=said.gold != "",
        source=source,
        text_hash="changed" if changed else item.text_hash,
        extra=extra,
    )


def _order(said: Said, item: Item) -> tuple[str, bool]:
    """Which answer stood left (`ab`, `ba`, "" where nothing tells), and whether the texts have changed since.

    Texts are believed before the `order` column: it is the texts that the person read.
    """
    other_prompt = said.prompt is not None and not _same_prompt(said.prompt, item)
    if said.left is None or said.right is None:
        return said.order, other_prompt
    shown = (_plain(said.left), _plain(said.right))
    own = (_plain(item.a.text), _plain(item.b.text))
    if shown == own:
        return "ab", other_prompt
    if shown == own[::-1]:
        return "ba", other_prompt
    return said.order, True


def _texts(one: str, other: str) -> tuple[str, str]:
    first, second = sorted((_plain(one), _plain(other)))
    return first, second


def _same_prompt(told: str, item: Item) -> bool:
    """Whether a file's prompt is the item's: the conversation as one text, or, as some tools have it, its last turn."""
    shown = " ".join(told.split())
    return shown in (" ".join(prompt_text(item.messages).split()), " ".join(item.messages[-1].content.split()))


def _spelled(axis: str) -> str:
    return re.sub(r"[_\-. ]+", "-", axis.casefold())


def _plain(text: str) -> str:
    """What survives tools that trim lines or rewrite line ends."""
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n"))


def _person(name: str, people: dict[str, str], report: ImportReport, where: str) -> str:
    """The first spelling under which a person was met."""
    stripped = " ".join(name.split())
    known = people.setdefault(folded(name), stripped)
    if known != stripped:
        report.met("duplicate_person", f"{where}: {stripped!r} is taken as {known!r}")
    return known


def demonstrations(labels: Sequence[HumanLabel], items: Mapping[str, Item]) -> Iterator[dict[str, Any]]:
    """The answers that people rewrote, as SFT rows."""
    for label in labels:
        item = items.get(label.comparison_id)
        if label.edit.strip() and item is not None:
            turns = [*(turn.row() for turn in item.messages), {"role": "assistant", "content": label.edit}]
            yield {
                "messages": turns,
                "id": label.id,
                "prompt_id": item.prompt_id,
                "kind": "demonstration",
                "source": f"annotator {label.annotator}",
            }
