"""The rows that training reads: conversations, and preferences grouped so that all pairs of a prompt stay together."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.modelfolder import strftime_now
from cai.preferences import read_preferences
from cai.records import Message, Messages, Preference, content_hash, messages_from
from cai.store import given_rows

SPLITS = ("train", "test")
ENDS = (".jsonl", ".jsonl.gz", ".parquet")
"""Of the file of a split in a folder; the first that is there is read."""


@dataclass(frozen=True)
class PairSource:
    """One part of a mixture of preferences.

    Attributes:
        name: stands in reports.
        path: a folder with `train` and, where anything is held out, `test` (any format that `cai.preferences` reads),
            or one file. A file's prompts that a folder of the mixture names are in that folder's split, whichever of
            its rows are taken; of the others `test_fraction` are held out by hash.
        axes, sources: those taken; empty for all. People's helpfulness and AI harmlessness are two sources of a
            mixture.
        weight: of each of its rows in the loss.
        system: put before each of its prompts, see `with_system`.
        own: whether this run wrote it: a row that cannot be read is then a fault, and ends the reading. Of what others
            wrote such rows are left out and counted (HH-RLHF has one in a thousand).
    """

    name: str
    path: Path
    axes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    weight: float = 1.0
    test_fraction: float = 0.1
    system: str = ""
    own: bool = False


@dataclass(frozen=True)
class Pair:
    """Two answers of an element, by their places, with the soft label that `first` is better.

    Attributes:
        tie: whether neither is said to be better, whatever `p` leans to.
    """

    first: int
    second: int
    p: float
    weight: float
    axis: str
    source: str
    id: str
    tie: bool = False


@dataclass(frozen=True)
class Element:
    """All pairs of a group: one element of a batch (InstructGPT, arXiv 2203.02155, section 3.5).

    Attributes:
        answers: distinct texts.
    """

    group_id: str
    prompt_id: str
    messages: Messages
    answers: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Pairs:
    """A mixture as it was read.

    Attributes:
        mixture: counts by source, axis and split, as they are told to the user.
        digest: hash of all that was read, in order.
    """

    train: tuple[Element, ...]
    test: tuple[Element, ...]
    mixture: dict[str, Any]
    digest: str


def read_pairs(
    sources: Sequence[PairSource], *, hard: bool = False, say: Callable[[str], None] = lambda _: None
) -> Pairs:
    """Read a mixture: labels of people and of a model on the same prompts, say, a folder and a file.

    Args:
        hard: whether labels are rounded to 1. Ties have no side to be rounded to and are left out then, also those that
            lean to one; soft labels teach that they are ties.
        say: is told of the rows of a source that cannot be read.

    Raises:
        InputError: a file cannot be read, nor any row of a source, nor one of our own; a weight is not above 0; nothing
            in a source is of the axes and sources asked for; no pair is left, or two folders differ in which split a
            prompt is in.
    """
    if not sources:
        raise InputError("there are no preferences to train on", mend="run `cai judge`, or name `pairs` in the recipe")
    # In a file of others one id may stand for several prompts, whose answers must not be compared under the first.
    groups: dict[str, dict[tuple[str, str, Messages], list[tuple[Preference, PairSource]]]] = {s: {} for s in SPLITS}
    told: dict[str, Counter[str]] = {}
    unreadable: list[list[InputError]] = [[] for _ in sources]
    folders = {n: list(_folder_rows(source, unreadable[n])) for n, source in enumerate(sources) if source.path.is_dir()}
    placed = {row.prompt_id: split for rows in folders.values() for split, row in rows}
    for number, source in enumerate(sources):
        counts = told.setdefault(source.name, Counter())
        before, bad = counts.total(), unreadable[number]
        met, taken = Counter[str](), 0
        for split, row in folders[number] if number in folders else _file_rows(source, placed, bad):
            if (source.axes and row.axis not in source.axes) or (source.sources and row.source not in source.sources):
                counts["another axis or source"] += 1
                met[f"{row.source}/{row.axis or 'overall'}"] += 1
                continue
            if row.p is None:
                counts["without a verdict"] += 1
                continue
            if hard and _is_tie(row):
                counts["ties dropped"] += 1
                continue
            counts[split] += 1
            taken += 1
            groups[split].setdefault((source.name, _group(row), row.messages), []).append((row, source))
        if bad:
            if counts.total() == before:
                raise bad[0]
            counts["unreadable rows"] += len(bad)
            say(f"{len(bad)} rows of {source.name} cannot be read and are left out; the first: {bad[0]}")
        if met and not taken:
            raise InputError(
                f"{source.name} has no row of the axes and sources that are asked for",
                where=str(source.path),
                mend=f"rows by source/axis: {', '.join(f'{name} {count}' for name, count in sorted(met.items()))}",
            )
    parts = {split: tuple(_element(rows, hard) for rows in found.values()) for split, found in groups.items()}
    both = {e.prompt_id for e in parts["train"]} & {e.prompt_id for e in parts["test"]}
    if both:
        raise InputError(f"{len(both)} prompts are in train and test", where=f"prompt {min(both)}")
    counted: dict[str, dict[str, float]] = {name: dict(sorted(counts.items())) for name, counts in told.items()}
    if not parts["train"]:
        raise InputError("the training split has no pair", mend=f"what was read: {json.dumps(counted)}")
    weights = {source.name: source.weight for source in sources}
    for name, figures in counted.items():
        figures["weight"] = weights[name]
    by_axis = Counter(f"{pair.source}/{pair.axis or 'overall'}" for e in parts["train"] for pair in e.pairs)
    mixture = {"sources": counted, "train_pairs_by_axis": dict(sorted(by_axis.items()))}
    digest = content_hash(
        [
            [e.group_id, e.answers, [[p.first, p.second, p.p, p.weight] for p in e.pairs]]
            for split in SPLITS
            for e in parts[split]
        ]
        + [source.system for source in sources if source.system]
    )
    return Pairs(parts["train"], parts["test"], mixture, digest)


def _read(source: PairSource, file: Path, unreadable: list[InputError]) -> Iterator[Preference]:
    for row in read_preferences(file, broken=None if source.own else unreadable.append):
        if row.chosen == row.rejected:  # our own records are read as they stand
            raise InputError("chosen and rejected are the same text", where=f"{file}: preference {row.id}")
        if not (row.weight > 0 and math.isfinite(row.weight)):  # below 0 the loss would teach the opposite
            raise InputError(
                f"weight {row.weight:g} is not a finite number above 0",
                where=f"{file}: preference that begins {' '.join(row.messages[0].content.split())[:60]!r}",
                mend="leave such rows out, or the column",
            )
        yield row


def _folder_rows(source: PairSource, unreadable: list[InputError]) -> Iterator[tuple[str, Preference]]:
    for split in SPLITS:
        files = (source.path / f"{split}{end}" for end in ENDS)
        file = next((file for file in files if file.is_file()), None)
        if file is not None:
            yield from ((split, row) for row in _read(source, file, unreadable))
        elif split == "train":
            raise InputError("has no train split", where=str(source.path), mend="run `cai judge` or `cai merge` first")


def _file_rows(
    source: PairSource, placed: Mapping[str, str], unreadable: list[InputError]
) -> Iterator[tuple[str, Preference]]:
    for row in _read(source, source.path, unreadable):
        drawn = "test" if held_out(row.prompt_id, source.test_fraction) else "train"
        yield placed.get(row.prompt_id, drawn), row


def _group(row: Preference) -> str:
    """What its pairs are one element by: the group, or the prompt in a file that says nothing of groups."""
    return row.group_id or row.prompt_id


def held_out(prompt_id: str, fraction: float) -> bool:
    """Whether a prompt is held out, by hash of its id."""
    return int(content_hash("held out", prompt_id, length=8), 16) / 2**32 < fraction


def _is_tie(row: Preference) -> bool:
    return row.status == "tie" or row.p == 0.5


def _element(rows: Sequence[tuple[Preference, PairSource]], hard: bool) -> Element:
    answers: dict[str, int] = {}
    pairs = []
    # A file without groups and weights: the weights too are made here; the pairs of a prompt on an axis count as 1.
    unsaid = all(not row.group_id and row.weight == 1 for row, _ in rows)
    on_axis = Counter(row.axis for row, _ in rows)
    for row, source in rows:
        first, second = (answers.setdefault(text, len(answers)) for text in (row.chosen, row.rejected))
        assert row.p is not None
        p = 1.0 if hard else row.p
        weight = source.weight * (1 / on_axis[row.axis] if unsaid else row.weight)
        pairs.append(Pair(first, second, p, weight, row.axis, row.source, row.id, _is_tie(row)))
    first_row, first_source = rows[0]
    messages = with_system(first_row.messages, first_source.system)
    return Element(_group(first_row), first_row.prompt_id, messages, tuple(answers), tuple(pairs))


def with_system(messages: Messages, system: str) -> Messages:
    """A conversation behind a system prompt, as the SFT data have it: joined to its own system turn, if it has one."""
    if not system:
        return messages
    if messages[0].role == "system":
        return (Message("system", f"{system}\n\n{messages[0].content}"), *messages[1:])
    return (Message("system", system), *messages)


# --- conversations ----------------------------------------------------------------------------------------------------


def read_conversations(folder: Path) -> dict[str, list[Messages]]:
    """The rows of SFT data by split; each ends with an assistant's turn.

    Raises:
        InputError: no training split, or a row without `messages`, with its line.
    """
    if not (folder / "train.jsonl").is_file():
        raise InputError(
            "has no train.jsonl" if folder.is_dir() else "no such folder",
            where=str(folder),
            mend="run `cai run` on the recipe first; other data go into train.jsonl and test.jsonl, rows with messages",
        )
    found: dict[str, list[Messages]] = {}
    for split in SPLITS:
        path = folder / f"{split}.jsonl"
        if not path.is_file():
            continue
        rows = []
        for number, row in given_rows(path):
            where = f"{path}:{number}"
            if "messages" not in row:
                raise InputError(f"has no column messages, but {', '.join(map(str, row))[:80]}", where=where)
            messages = messages_from(row["messages"], where=where)
            if messages[-1].role != "assistant":
                raise InputError("does not end with an assistant's turn", where=where)
            rows.append(messages)
        found[split] = rows
    if not found["train"]:
        raise InputError("train.jsonl has no row", where=str(folder), mend="no answer was fit to be trained on")
    return found


def conversations_digest(rows: Mapping[str, Sequence[Messages]]) -> str:
    """Hash of conversations by split."""
    return content_hash({split: [[m.row() for m in messages] for messages in found] for split, found in rows.items()})


# --- tokens -----------------------------------------------------------------------------------------------------------


def check_template(tokenizer: Any, where: str) -> None:
    """A tokenizer that can train chat.

    Raises:
        InputError: it has no chat template, or no end-of-sequence token.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template",
            where=where,
            mend="add chat_template.jinja, or train an instruct model",
        )
    if tokenizer.eos_token_id is None:
        raise InputError("the tokenizer has no end-of-sequence token", where=where)


def tokens(tokenizer: Any, messages: Sequence[Message], *, begin_answer: bool = False) -> list[int]:
    """Token ids of a conversation under the chat template.

    Raises:
        InputError: the template does not take such a conversation (no system turns, say); names it by its first words.
    """
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            [message.row() for message in messages],
            tokenize=False,
            add_generation_prompt=begin_answer,
            strftime_now=strftime_now,
        )
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        begin = " ".join(messages[0].content.split())[:60] if messages else ""
        raise InputError(
            f"the chat template refuses the turns {roles}: {' '.join(str(error).split())}",
            where=f"conversation that begins {begin!r}",
            mend="leave such conversations out, or give the model another chat_template.jinja",
        ) from error
    return list(tokenizer.encode(text, add_special_tokens=False))


@dataclass(frozen=True)
class Encoded:
    """An element in tokens: row k is `prompt + completions[k]`."""

    prompt: list[int]
    completions: list[list[int]]
    element: Element

    def row(self) -> dict[str, Any]:
        """Columns for a `datasets.Dataset`."""
        pairs = self.element.pairs
        return {
            "prompt_ids": self.prompt,
            "completion_ids": self.completions,
            "first": [pair.first for pair in pairs],
            "second": [pair.second for pair in pairs],
            "p": [float(pair.p) for pair in pairs],
            "weight": [float(pair.weight) for pair in pairs],
        }


def encode(elements: Iterable[Element], tokenizer: Any, *, longest: int) -> tuple[list[Encoded], int]:
    """Elements in tokens, and how many were left out because an answer with its prompt exceeds `longest` tokens.

    A completion starts where the tokenised prompt and the tokenised conversation part, as in TRL.

    Raises:
        InputError: none fits.
    """
    kept, dropped = [], 0
    for element in elements:
        prompt = tokens(tokenizer, element.messages, begin_answer=True)
        whole = [tokens(tokenizer, (*element.messages, Message("assistant", answer))) for answer in element.answers]
        common = min(common_start(prompt, row) for row in whole)
        if max(map(len, whole)) > longest:
            dropped += 1
            continue
        kept.append(Encoded(prompt[:common], [row[common:] for row in whole], element))
    if dropped and not kept:
        raise InputError(f"all {dropped} groups are longer than {longest} tokens", mend="raise max_length")
    return kept, dropped


def common_start(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with: where a prompt ends in a conversation that was tokenised as a whole."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
