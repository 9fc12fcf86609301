"""SFT rows from responses, and the files that carry them.

SL-CAI (Bai et al. 2022, arXiv 2212.08073) trains on the revisions of all steps, mixed with helpful answers that nobody
revised. Here a prompt that was to be revised gives its clean revisions and never its draft; a prompt that the recipe
leaves unrevised gives its draft. `choose` decides for each response and says why not, so that the rows, the counts and
`cai why` agree by construction.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypedDict, get_args

import jsonlines

from cai.errors import InputError
from cai.faults import BLOCKING
from cai.records import Prompt, Response, content_hash
from cai.store import disk_error, replacing

Kind = Literal["revision", "unrevised"]
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Revisions = Literal["all", "last"]

COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("messages", "messages", "The conversation; the last turn is the answer to train on."),
    ("id", "text", "Id of the response; `cai why RUN ID` tells its story."),
    ("prompt_id", "text", "Id of the prompt; several rows can share it, always in the same split."),
    ("round", "int", "0 for an answer nobody revised, 1, 2, ... for the revision of that round."),
    ("kind", "text", "`revision` or `unrevised`."),
    ("principle_ids", "texts", "The principles asked in this round."),
    ("model", "text", "Fingerprint of the model that wrote the answer."),
    ("tags", "texts", "Labels of the prompt."),
    ("source", "text", "Where the prompt came from."),
    ("parent_id", "text", "Id of the response that was revised; empty for an answer nobody revised."),
    ("split", "text", "`train` or `test`."),
)
"""Name, type (`text`, `int`, `texts`, `messages`) and meaning of every column, in file order; never null.

Readers tell formats apart by column names, so these are kept out of their way: `prompt`, `completion`, `chosen`,
`rejected` and `text` mean other formats to TRL, and `system_prompt` beside `id`, `source`, `model` and `messages` makes
`datasets` take a JSONL file for an agent's trace.
"""

REASONS: Mapping[str, str] = {
    "draft_of_revised": "it is a draft, and its prompt was revised",
    "not_revised": "it is a draft whose prompt was to be revised, but there is no revision",
    "unrevised_off": "it is an unrevised answer, and the recipe leaves those out",
    "flagged": "it carries a flag that keeps it out",
    "blank": "it is blank",
    "not_last": "a later revision replaced it, and the recipe takes only the last",
    "duplicate": "an earlier answer to the same prompt has the same text",
    "sampled": "it was sampled for comparing, and SFT data are made of what the revise stage made",
    "prompt_gone": "its prompt is no longer among the prompts",
}
"""Why a response did not become a row: the fixed word that is counted, and the rest of a sentence for people."""


class SftRow(TypedDict):
    """A training row; see `COLUMNS`."""

    messages: list[dict[str, str]]
    id: str
    prompt_id: str
    round: int
    kind: Kind
    principle_ids: list[str]
    model: str
    tags: list[str]
    source: str
    parent_id: str
    split: Split


@dataclass(frozen=True, kw_only=True)
class SftOptions:
    """What becomes a training row.

    Attributes:
        seed: of the split only.
        revisions: `all` rounds, as in the paper, or only the `last` clean one of each draft.
        include_unrevised: whether answers that nobody was to revise are mixed in.
        unrevised_tags: tags whose prompts the recipe does not revise; None when it revises none at all (0 rounds). A
            draft enters only with one of them: any other prompt without a revision is one whose revision failed, and
            its draft is what revising was to mend.
        test_fraction: expected share of the openings (first user turns) whose rows go to the test split.
        system_prompt: put before every conversation when not blank, joined to the prompt's own system turn if it
            has one (most chat templates refuse two), as `revise` shows it to the model.
        drop_flags: a response that carries any of these never enters.

    Raises:
        InputError: a fraction outside 0 to 1, or another word for `revisions`.
    """

    seed: int
    revisions: Revisions = "all"
    include_unrevised: bool = True
    unrevised_tags: frozenset[str] | None = frozenset()
    test_fraction: float = 0.05
    system_prompt: str = ""
    drop_flags: frozenset[str] = BLOCKING

    def __post_init__(self) -> None:
        if not 0 <= self.test_fraction <= 1:
            raise InputError(f"must be between 0 and 1, not {self.test_fraction}", where="test_fraction")
        if self.revisions not in get_args(Revisions):
            raise InputError(f"must be one of {', '.join(get_args(Revisions))}", where="revisions")


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a response is trained on: its `kind`, or None and the `reason`, a key of `REASONS`."""

    response: Response
    kind: Kind | None
    reason: str = ""


def choose(prompt: Prompt, responses: Sequence[Response], options: SftOptions) -> tuple[Choice, ...]:
    """What becomes of each of a prompt's `responses` (in round order; several drafts are several chains)."""
    clean = [r for r in responses if r.round > 0 and r.text.strip() and options.drop_flags.isdisjoint(r.flags)]
    replaced = _ancestors(clean, responses) if options.revisions == "last" else frozenset()
    revised = any(r.round > 0 for r in responses)
    to_revise = options.unrevised_tags is not None and options.unrevised_tags.isdisjoint(prompt.tags)
    seen: set[str] = set()
    choices = []
    for response in responses:
        reason = ""
        if response.round == 0 and revised:
            reason = "draft_of_revised"
        elif response.round == 0 and to_revise:
            reason = "not_revised"
        elif response.round == 0 and not options.include_unrevised:
            reason = "unrevised_off"
        elif not options.drop_flags.isdisjoint(response.flags):
            reason = "flagged"
        elif not response.text.strip():
            reason = "blank"
        elif response.id in replaced:
            reason = "not_last"
        elif response.text in seen:
            reason = "duplicate"
        else:
            seen.add(response.text)
        kind: Kind = "revision" if response.round else "unrevised"
        choices.append(Choice(response, None if reason else kind, reason))
    return tuple(choices)


def _ancestors(revisions: Iterable[Response], responses: Iterable[Response]) -> frozenset[str]:
    """Ids of everything that one of `revisions` was made from."""
    parents = {r.id: r.parent_id for r in responses}
    found: set[str] = set()
    for revision in revisions:
        parent = revision.parent_id
        while parent is not None and parent not in found:
            found.add(parent)
            parent = parents.get(parent)
    return frozenset(found)


def split_of(prompt: Prompt, fraction: float, seed: int) -> Split:
    """Which split a prompt's rows go to; `fraction` is the expected share of openings in the test split.

    A pure function of the first user turn and the seed: conversations that open alike (whatever their case, spacing,
    punctuation and Unicode form) stay together, adding prompts moves none, and raising the fraction only adds to the
    test split.
    """
    words = folded_opening(prompt)
    return "test" if int(content_hash("split", seed, words, length=16), 16) < fraction * 16**16 else "train"


def folded_opening(prompt: Prompt) -> str:
    """The first user turn without case, spacing, punctuation and Unicode form: what conversations of one kind share."""
    opening = next((turn.content for turn in prompt.messages if turn.role == "user"), "")
    folded = unicodedata.normalize("NFKC", opening).casefold()
    return re.sub(r"\W+", " ", folded).strip() or " ".join(folded.split())


def sft_rows(
    prompts: Iterable[Prompt],
    responses: Mapping[str, Sequence[Response]],
    options: SftOptions,
    *,
    left_out: MutableMapping[str, int] | None = None,
) -> Iterator[SftRow]:
    """Training rows, in the order of `prompts`, a prompt's rows together and in round order.

    Args:
        prompts: one given twice counts once (the ids seen are kept: about 100 bytes a prompt).
        responses: by prompt id, each in round order; a prompt without any gives no row.
        left_out: receives the number of responses that gave no row, by reason (a key of `REASONS`), as rows are drawn.
    """
    done: set[str] = set()
    for prompt in prompts:
        if prompt.id in done:
            continue
        done.add(prompt.id)
        split = split_of(prompt, options.test_fraction, options.seed)
        for choice in choose(prompt, responses.get(prompt.id, ()), options):
            if choice.kind is not None:
                yield _row(
                    prompt, choice.response, kind=choice.kind, split=split, system_prompt=options.system_prompt.strip()
                )
            elif left_out is not None:
                left_out[choice.reason] = left_out.get(choice.reason, 0) + 1


def _row(prompt: Prompt, response: Response, *, kind: Kind, split: Split, system_prompt: str) -> SftRow:
    messages = [turn.row() for turn in prompt.messages]
    if system_prompt and messages[0]["role"] == "system":
        messages[0]["content"] = f"{system_prompt}\n\n{messages[0]['content']}"
    elif system_prompt:
        messages.insert(0, {"role": "system", "content": system_prompt})
    return {
        "messages": [*messages, {"role": "assistant", "content": response.text}],
        "id": response.id,
        "prompt_id": prompt.id,
        "round": response.round,
        "kind": kind,
        "principle_ids": list(response.principle_ids),
        "model": response.model,
        "tags": list(prompt.tags),
        "source": prompt.source,
        "parent_id": response.parent_id or "",
        "split": split,
    }


@dataclass(frozen=True)
class SftCounts:
    """How many rows `write_sft` wrote; every mapping is in the order of its keys, and counts rows unless it says else.

    Attributes:
        prompts: prompts by split.
        by_principle: rows whose round asked for the principle; a row can count for several.
        by_tag: rows of prompts with the tag; a row can count for several.
        mended: rows with a lone surrogate, which UTF-8 cannot carry, replaced by U+FFFD.
    """

    rows: int
    prompts: Mapping[str, int]
    by_split: Mapping[str, int]
    by_kind: Mapping[str, int]
    by_round: Mapping[int, int]
    by_principle: Mapping[str, int]
    by_tag: Mapping[str, int]
    by_model: Mapping[str, int]
    mended: int

    def row(self) -> dict[str, Any]:
        """JSON object."""
        return {**dataclasses.asdict(self), "by_round": {str(k): n for k, n in self.by_round.items()}}


def write_sft(folder: Path, rows: Iterable[SftRow], *, row_group: int = 2_000) -> SftCounts:
    """Write `train` and `test` as `.jsonl` and `.parquet` in `folder`: the same rows with the same columns.

    Equal rows give equal bytes. Rows stream; memory holds at most `row_group` of each split. A file is replaced as a
    whole once all rows were drawn, so an error among them leaves the old ones. A split without rows has no files (old
    ones are removed): `datasets` cannot load an empty Parquet or JSONL file. The card lists what there is.

    Args:
        rows: as `sft_rows` gives them, a prompt's rows together.
        row_group: rows in a Parquet row group, which is also what `datasets` reads at once.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    counted = ("prompts", "by_split", "by_kind", "by_round", "by_principle", "by_tag", "by_model")
    tally = {name: Counter[Any]() for name in counted}
    mended, last_prompt = 0, ""
    with contextlib.ExitStack() as stack:
        writers: dict[Split, _SplitWriter] = {}
        for given in rows:
            row: SftRow = mended_text(given)
            mended += row != given
            split = row["split"]
            if split not in writers:
                writers[split] = stack.enter_context(_split_writer(folder, split, row_group))
            writers[split].write(row)
            if row["prompt_id"] != last_prompt:
                tally["prompts"][split] += 1
                last_prompt = row["prompt_id"]
            tally["by_split"][split] += 1
            tally["by_kind"][row["kind"]] += 1
            tally["by_round"][row["round"]] += 1
            tally["by_model"][row["model"]] += 1
            tally["by_principle"].update(set(row["principle_ids"]))
            tally["by_tag"].update(set(row["tags"]))
    for path in [
        folder / f"{split}.{kind}" for split in SPLITS if split not in writers for kind in ("jsonl", "parquet")
    ]:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, path) from error
    by = {name: dict(sorted(counter.items())) for name, counter in tally.items()}
    return SftCounts(rows=sum(by["by_split"].values()), mended=mended, **by)


class _SplitWriter:
    """Both files of one split, open for writing; see `_split_writer`."""

    def __init__(self, jsonl: IO[bytes], parquet: IO[bytes], row_group: int) -> None:
        import pyarrow.parquet

        self._jsonl = jsonlines.Writer(jsonl, dumps=dumps)
        self._schema = arrow_schema()
        # Nothing here may vary between two writings: no file-level metadata of ours, one codec.
        self._parquet = pyarrow.parquet.ParquetWriter(parquet, self._schema, compression="zstd")
        self._waiting: list[SftRow] = []
        self._row_group = row_group

    def write(self, row: SftRow) -> None:
        self._jsonl.write(row)
        self._waiting.append(row)
        if len(self._waiting) >= self._row_group:
            self.flush()

    def flush(self) -> None:
        import pyarrow

        if self._waiting:
            table = pyarrow.Table.from_pylist(self._waiting, schema=self._schema)
            self._parquet.write_table(table, row_group_size=self._row_group)
            self._waiting.clear()

    def close(self) -> None:
        self._parquet.close()
        self._jsonl.close()


@contextlib.contextmanager
def _split_writer(folder: Path, split: Split, row_group: int) -> Iterator[_SplitWriter]:
    with (
        replacing(folder / f"{split}.jsonl") as jsonl,
        replacing(folder / f"{split}.parquet") as parquet,
        contextlib.closing(_SplitWriter(jsonl, parquet, row_group)) as writer,
    ):
        yield writer
        writer.flush()


def arrow_schema() -> Any:
    """The `pyarrow.Schema` of the Parquet files, from `COLUMNS`."""
    import pyarrow as pa

    types = {
        "text": pa.string(),
        "int": pa.int64(),
        "texts": pa.list_(pa.string()),
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    }
    return pa.schema([(name, types[kind]) for name, kind, _ in COLUMNS])


# Line separators that JSON allows inside a string, and at which many readers (`str.splitlines`) would break the line.
_BREAKS = re.compile("[\x85\u2028\u2029]")


def dumps(row: Any) -> str:
    text = json.dumps(row, ensure_ascii=False, separators=(", ", ": "))
    return _BREAKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def utf8(text: str) -> str:
    """`text` as UTF-8 can carry it: halves of a surrogate pair joined, lone ones replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mended_text(value: Any) -> Any:
    if isinstance(value, str):
        return utf8(value)
    if isinstance(value, dict):
        return {key: mended_text(item) for key, item in value.items()}
    return [mended_text(item) for item in value] if isinstance(value, list) else value
