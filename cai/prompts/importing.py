"""From files in any format to one file of `Prompt.row()`, without duplicates, every row accounted for.

rows written + exact + near + skipped = rows found
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from cai.errors import InputError
from cai.prompts.idset import IdSet
from cai.prompts.near import NearIndex
from cai.prompts.read import read_rows
from cai.prompts.rows import DEFAULT_OPTIONS, BadRow, ReadOptions
from cai.records import Prompt
from cai.store import encode, replacing

SHOWN = 20
"""Broken rows that a summary names one by one; all are in the file of dropped rows."""


@dataclass(frozen=True)
class ImportOptions:
    """What to do with the rows.

    Attributes:
        format: the name of a format, or `auto`.
        read: see `ReadOptions`.
        tags: added to every prompt.
        limit: stop when so many are written.
        dedup: write a prompt once, however often it comes (equal ids). Without it the copies are kept and counted.
        near: similarity from which a prompt counts as one that was written before (see `cai.prompts.near`); None: off.
        strict: stop at the first row that cannot be read, leaving no output, instead of skipping it.
        allow_torn: take what can be read of a torn or corrupt file, instead of stopping there without output.
    """

    format: str = "auto"
    read: ReadOptions = DEFAULT_OPTIONS
    tags: tuple[str, ...] = ()
    limit: int | None = None
    dedup: bool = True
    near: float | None = None
    strict: bool = False
    allow_torn: bool = False


@dataclass
class Summary:
    """What an import did; `row()` is its JSON.

    Attributes:
        found: rows that the sources hold (up to where `limit` stopped), broken ones included.
        written: prompts in the output.
        exact, near: rows left out as duplicates.
        skipped: rows that could not be read; `problems` names the first of them.
        torn: files of which the rest could not be read; each counts as one row skipped.
        copies: exact duplicates that were written, as `dedup` was off.
        notes: what was left out of conversations, counted (see `cai.prompts.rows`).
        tags: prompts written by tag.
    """

    found: int = 0
    written: int = 0
    exact: int = 0
    near: int = 0
    skipped: int = 0
    torn: int = 0
    copies: int = 0
    limited: bool = False
    notes: Counter[str] = field(default_factory=Counter)
    tags: Counter[str] = field(default_factory=Counter)
    problems: list[BadRow] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {
            "found": self.found,
            "written": self.written,
            "dropped": {"exact": self.exact, "near": self.near},
            "skipped": self.skipped,
            "torn_files": self.torn,
            "copies_kept": self.copies,
            "limited": self.limited,
            "notes": dict(sorted(self.notes.items())),
            "tags": dict(sorted(self.tags.items())),
            "problems": [{"where": bad.where, "reason": bad.reason} for bad in self.problems],
        }


def import_prompts(
    sources: Sequence[Path],
    out: Path,
    *,
    options: ImportOptions = ImportOptions(),
    dropped: Path | None = None,
    force: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Summary:
    """Write the prompts of `sources` to `out`, in order; the first of several duplicates is kept, with its own tags.

    `out` appears when it is complete, or not at all. A prompt's source is its place in the file, which is named as in
    `sources`, by the last part of an absolute path; a source that the row itself gives stays. Memory does not grow with
    the input but for 20 bytes a prompt (and, with `near`, what `NearIndex` says).

    Args:
        dropped: takes one JSON object a row that was found and not written: `id`, `kept` (the id of the prompt that
            stands for it), `reason` (`exact`, `near`, `unreadable`), `similarity`, `where`, `detail`, `tags`.
        force: replace files that exist.
        on_bytes: told how many bytes of the sources, as they lie on the disk, have been read.

    Raises:
        InputError: an output exists or is a source; a source is missing, cannot be read at all or is torn (but for
            `allow_torn`); with `strict` the first broken row; there is no row, or none that could be read.
        StoreError: the output cannot be written.
    """
    _check_outputs(sources, out, dropped, force=force)
    if options.near is not None and not options.dedup:
        raise InputError("near-duplicates cannot be removed while exact ones are kept", where="--no-dedup")
    summary = Summary()
    with contextlib.ExitStack() as stack:
        drops = stack.enter_context(replacing(dropped)) if dropped else None
        file = stack.enter_context(replacing(out))
        _Importer(file, drops, options, summary).run(_every(sources, options, summary, on_bytes))
        if not summary.written and summary.skipped:
            bad = summary.problems[0]
            raise InputError(f"no row could be read; the first: {bad.reason}", where=bad.where)
        if not summary.found and options.limit != 0:
            raise InputError("no prompt in it", where=", ".join(str(source) for source in sources))
    return summary


class _Importer:
    def __init__(self, out: IO[bytes], drops: IO[bytes] | None, options: ImportOptions, summary: Summary) -> None:
        self._out, self._drops, self._options, self._summary = out, drops, options, summary
        self._ids = IdSet()
        self._near = NearIndex(options.near) if options.near is not None else None

    def run(self, rows: Iterator[tuple[Path, Prompt | BadRow]]) -> None:
        summary = self._summary
        if self._options.limit == 0:
            return
        for path, row in rows:
            summary.found += 1
            if isinstance(row, BadRow):
                self._skip(row)
            elif self._is_new(row):
                self._out.write(encode(_without_folders(row, path).row()))
                summary.written += 1
                summary.tags.update(row.tags)
                if summary.written == self._options.limit:
                    summary.limited = next(rows, None) is not None
                    return

    def _is_new(self, prompt: Prompt) -> bool:
        if not self._ids.add(prompt.id):
            if not self._options.dedup:
                self._summary.copies += 1
                return True
            self._summary.exact += 1
            self._drop(prompt, prompt.id, "exact", 1.0)
            return False
        match = self._near.match(prompt) if self._near is not None else None
        if match:
            self._summary.near += 1
            self._drop(prompt, match[0].id, "near", round(match[1], 4))
        return match is None

    def _skip(self, bad: BadRow) -> None:
        if self._options.strict:
            raise bad.error()
        if bad.torn and not self._options.allow_torn:
            raise InputError(
                bad.reason, where=bad.where, mend="mend the file, or give --allow-torn to take what can be read of it"
            )
        self._summary.torn += bad.torn
        self._summary.skipped += 1
        if len(self._summary.problems) < SHOWN:
            self._summary.problems.append(bad)
        self._write_drop({"id": None, "kept": None, "reason": "unreadable", "where": bad.where, "detail": bad.reason})

    def _drop(self, prompt: Prompt, kept: str, reason: str, similarity: float) -> None:
        row = {"id": prompt.id, "kept": kept, "reason": reason, "similarity": similarity, "where": prompt.source}
        self._write_drop({**row, "tags": list(prompt.tags)})

    def _write_drop(self, row: dict[str, Any]) -> None:
        if self._drops is not None:
            self._drops.write(encode(row))


def _every(
    sources: Sequence[Path], options: ImportOptions, summary: Summary, on_bytes: Callable[[int], None] | None
) -> Iterator[tuple[Path, Prompt | BadRow]]:
    done = 0
    for source in sources:

        def tick(size: int, before: int = done) -> None:
            if on_bytes:
                on_bytes(before + size)

        rows = read_rows(
            source, options.format, options=options.read, tags=options.tags, notes=summary.notes, tick=tick
        )
        yield from ((source, row) for row in rows)
        done += size_of([source])
        tick(0, done)


def _without_folders(prompt: Prompt, path: Path) -> Prompt:
    """Its source names a file given by an absolute path without the folders: they are this machine's, not the data's.

    Only what is written is changed; what is told of rows left out is for whoever looks them up here.
    """
    if not path.is_absolute() or not prompt.source.startswith((f"{path}:", f"{path}{os.sep}")):
        return prompt
    return replace(prompt, source=path.name + prompt.source.removeprefix(str(path)))


def size_of(sources: Sequence[Path]) -> int:
    """Bytes that `sources` take on the disk, for a progress bar; a folder counts its Arrow files."""
    files = (file for source in sources for file in (source.glob("*.arrow") if source.is_dir() else [source]))
    return sum(file.stat().st_size for file in files if file.is_file())


def _check_outputs(sources: Sequence[Path], out: Path, dropped: Path | None, *, force: bool) -> None:
    outputs = [out, *([dropped] if dropped else [])]
    for source in sources:
        if not source.exists():
            raise InputError("no such file or folder", where=str(source))
    if len({path.absolute() for path in outputs}) < len(outputs):
        raise InputError("the prompts and the dropped rows cannot go to one file", where=str(out))
    for path in outputs:
        if path.exists() and any(source.samefile(path) for source in sources):
            raise InputError("is also an input; its rows would be lost if this fails", where=str(path))
        if path.is_dir():
            raise InputError("is a folder; name a file", where=str(path))
        if path.exists() and not force:
            raise InputError("exists already", where=str(path), mend="another name, or --force to replace it")
        if path.suffix in (".gz", ".xz", ".bz2", ".zst"):
            raise InputError("is written uncompressed", where=str(path), mend=f"name it {path.stem}")
