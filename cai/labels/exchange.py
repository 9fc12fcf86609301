"""Files of labels in and out, with a report of everything in them that would have become wrong data in silence."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.labels import formats
from cai.labels.events import label_id
from cai.labels.items import Item
from cai.labels.said import Said
from cai.labels.shown import order_of, prompt_text
from cai.records import HumanLabel
from cai.store import encode, replacing

TRAPS: Mapping[str, str] = {
    "broken": "rows that say nothing readable; left out",
    "unknown_pair": "verdicts on pairs that are not in this run; left out",
    "text_changed": "verdicts on texts that have changed since; kept, and not counted in merging",
    "status_unknown": "verdicts whose status the export does not carry: discarded ones look valid",
    "id_overwritten": "rows whose id is the annotation's; the pair was found by its texts",
    "sides_unknown": "verdicts of which nothing says which answer stood left; left is taken for a",
    "sides_turned": "verdicts given with the answers the other way round; turned back",
    "duplicate_person": "names that differ only in capitals or spaces; taken as one person",
    "repeated": "verdicts of one person on one pair that a later row replaces",
    "too_fast": "verdicts given faster than anyone reads; kept, and flagged",
    "not_counted": "verdicts that were skipped, discarded or never submitted; kept as such",
}
"""What an import can meet, and what is done about it."""

FASTEST = 15.0
"""Words a second above which nobody reads: five times a fast reader's 300 words a minute."""

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
            kept.append(where)

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


# --- files ------------------------------------------------------------------------------------------------------------


def rows_of(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    """The rows of a JSON array, JSONL or CSV file (.gz too), with the line (JSON array: the number) of each.

    A line that is not a row comes as its error.

    Raises:
        InputError: no such file, or it cannot be read as what its name says.
    """
    if not path.is_file():
        raise InputError("no such file", where=str(path))
    name = path.name.removesuffix(".gz")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), mend="save it as UTF-8") from error
    if name.endswith((".csv", ".tsv")):
        yield from _csv(text, path, "\t" if name.endswith(".tsv") else ",")
    elif text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", where=str(path), mend="is the file cut off?") from error
        for number, row in enumerate(found, start=1):
            yield number, row if isinstance(row, Mapping) else InputError("not an object", where=f"{path}:{number}")
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                yield number, InputError(f"not JSON: {error}", where=f"{path}:{number}")
                continue
            yield number, row if isinstance(row, Mapping) else InputError("not an object", where=f"{path}:{number}")


def _csv(text: str, path: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any] | InputError]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    if not reader.fieldnames:
        raise InputError("the file is empty", where=str(path))
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if None in row or None in row.values():
            yield reader.line_num, InputError("has another number of cells than the first line", where=where)
        else:
            yield reader.line_num, row


def export_tasks(path: Path, items: Iterable[Item], format_name: str) -> int:
    """Write items to be labelled elsewhere; how many.

    The side on which each answer stands is drawn by hash and written into the row (`order`), so that position can be
    told from preference afterwards.

    Raises:
        InputError: no such format, or nothing to write.
    """
    chosen = formats.load(format_name)
    rows = [chosen.task(item, order_of(item)) for item in items]
    if not rows:
        raise InputError("there is nothing to label", where=str(path))
    with replacing(path) as file:
        if chosen.SUFFIX == "json":
            file.write(json.dumps(rows, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass") + b"\n")
        elif chosen.SUFFIX == "jsonl":
            for row in rows:
                file.write(encode(row))
        else:
            out = io.StringIO(newline="")
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
            file.write(out.getvalue().encode("utf-8", "surrogatepass"))
    return len(rows)


# --- import -----------------------------------------------------------------------------------------------------------


def read_labels_from(
    path: Path,
    format_name: str,
    items: Mapping[str, Item],
    *,
    axis: str = "",
    strict: bool = False,
) -> tuple[list[HumanLabel], ImportReport]:
    """The events that a file holds, in its order, and what was met in reading it.

    Args:
        items: by comparison id; verdicts on others are reported and left out.
        axis: of rows that name none.
        strict: raise at the first row that is broken or about an unknown pair.

    Raises:
        InputError: the file cannot be read, no such format, or `strict`.
    """
    chosen, report = formats.load(format_name), ImportReport()
    by_text = {(item.a.text, item.b.text): item for item in items.values()}
    people: dict[str, str] = {}
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
            label = _label(said, items, by_text, people, report, where, axis, path.name)
            if label is None:
                if strict:
                    raise InputError("is about a pair that is not in this run", where=where)
                continue
            key = (label.annotator, label.comparison_id, label.axis)
            if key in last and last[key] != label.id:
                report.met("repeated", f"{where}: {label.annotator}")
            last[key] = label.id
            report.annotators[label.annotator] += 1
            report.edits += bool(label.edit)
            labels.append(label)
    return labels, report


def _label(
    said: Said,
    items: Mapping[str, Item],
    by_text: Mapping[tuple[str, str], Item],
    people: dict[str, str],
    report: ImportReport,
    where: str,
    axis: str,
    source: str,
) -> HumanLabel | None:
    item = items.get(said.pair) or by_text.get((said.left or "", said.right or ""))
    item = item or by_text.get((said.right or "", said.left or ""))
    if item is None:
        report.met("unknown_pair", f"{where}: {said.pair or 'no pair_id'}")
        return None
    for trap in said.traps:
        report.met(trap, where)
    order, changed = _order(said, item)
    if not order:
        report.met("sides_unknown", where)
    if order == "ba":
        report.met("sides_turned", where)
    if changed:
        report.met("text_changed", where)
    who = _person(said.annotator, people, report, where)
    words = sum(len(text.split()) for text in (prompt_text(item.messages), item.a.text, item.b.text))
    if said.seconds is not None and said.status == "submitted" and said.seconds * FASTEST < words:
        report.met("too_fast", f"{where}: {said.seconds:g} s for {words} words")
    if said.status != "submitted":
        report.met("not_counted", f"{where}: {said.status}")
    turned = order == "ba"
    verdict = {"left": "b" if turned else "a", "right": "a" if turned else "b"}.get(said.verdict, said.verdict)
    strength = said.strength if said.strength is None or not turned else 8 - said.strength
    named = said.axis or axis
    extra = dict(said.extra) | ({"traps": list(said.traps)} if said.traps else {})
    return HumanLabel(
        id=label_id(item.comparison_id, named, who, verdict, strength, said.status, said.ts, said.key, said.edit),
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
        ts=said.ts,
        edit=said.edit,
        gold=said.gold,
        source=source,
        text_hash="changed" if changed else item.text_hash,
        extra=extra,
    )


def _order(said: Said, item: Item) -> tuple[str, bool]:
    """Which answer stood left (`ab`, `ba`, "" where nothing tells), and whether the texts have changed since.

    Texts are believed before the `order` column: it is the texts that the person read.
    """
    if said.left is None or said.right is None:
        return said.order, False
    shown = (_plain(said.left), _plain(said.right))
    own = (_plain(item.a.text), _plain(item.b.text))
    if shown == own:
        return "ab", False
    if shown == own[::-1]:
        return "ba", False
    return said.order, True


def _plain(text: str) -> str:
    """What survives tools that trim lines or rewrite line ends."""
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").strip().split("\n"))


def _person(name: str, people: dict[str, str], report: ImportReport, where: str) -> str:
    """The first spelling under which a person was met."""
    stripped = " ".join(name.split())
    known = people.setdefault(stripped.casefold(), stripped)
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
