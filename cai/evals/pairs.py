"""Pairs of answers of which people said which is better, whatever columns their files have.

The format is detected from the columns of the first row that can be read, and holds for the whole file:

- `prompt, chosen, rejected` with `id`, `subset` and `p_human` where there are any: ours, and RewardBench. Where the
  answers are whole conversations, as UltraFeedback's, the prompt is what they share: there, `prompt` is the first turn;
- `input, output_1, output_2, label` (1 or 2): LLMBar;
- `instruction, response1, response2, annotator1, annotator2, ...` (0 tie, 1, 2): PandaLM, several people a pair;
- `chosen, rejected` as whole transcripts or lists of messages, without a prompt: HH-RLHF.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from cai.errors import InputError
from cai.prompts import jsonlines, transcript
from cai.prompts.files import is_parquet, parquet_rows, text_lines
from cai.prompts.rows import DEFAULT_OPTIONS, BadRow
from cai.records import Candidate, Group, Messages, Prompt, content_hash, messages_from
from cai.stages.export import folded_opening

Label = Literal["chosen", "rejected", "tie"]
Shape = Callable[[Mapping[str, Any], str], "LabelledPair"]


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two answers to a prompt, and what people said of them.

    Attributes:
        id: the row's own, or a hash of prompt and answers.
        chosen, rejected: by people; where as many prefer the one as the other, in the file's order.
        subset: of the data set.
        p_human: share of people who prefer `chosen`, a tie counting half; None where only one label is known.
        labels: each person's own verdict, in the order of the file's columns; empty where only the outcome is known.
    """

    id: str
    prompt: Prompt
    chosen: str
    rejected: str
    subset: str = ""
    p_human: float | None = None
    labels: tuple[Label, ...] = ()

    @property
    def cluster(self) -> str:
        """What intervals, halves and folds keep together: the key by which runs split prompts, as a hash."""
        return content_hash(folded_opening(self.prompt))

    @property
    def gold(self) -> Label | None:
        """What most people say: `chosen` or `tie`; None where no verdict has more of them than every other."""
        if self.labels:
            return plurality(self.labels)
        return "tie" if self.p_human == 0.5 else "chosen"

    def group(self) -> Group:
        """The two answers as a group. Which stands first is drawn by hash, and no id tells which was chosen."""
        made = [Candidate(content_hash(text, length=12), text) for text in (self.chosen, self.rejected)]
        return Group.make(self.prompt, sorted(made, key=lambda each: content_hash(self.prompt.id, each.text)))


def plurality(labels: Sequence[Label]) -> Label | None:
    """The label that more people gave than any other one, or None."""
    (first, count), *others = Counter(labels).most_common(2) or [("tie", 0)]
    return None if count == 0 or (others and others[0][1] == count) else first


def read_pairs(path: Path) -> Iterator[LabelledPair | BadRow]:
    """The pairs of a JSONL (compressed or not) or Parquet file; a row that is none is yielded as a `BadRow` with its
    place.

    An id that comes twice (data sets number each subset anew) gets its line behind it, so that ids are unique. Two rows
    with the same two answers stay two: people labelled them twice. All intervals are by prompt, so that this does not
    make them narrower.

    Raises:
        InputError: the file cannot be read, is torn or one JSON array, or its columns are of no known format.
    """
    ids: set[str] = set()
    shape: Shape | None = None
    for found in parquet_rows(path) if is_parquet(path) else _lines(path):
        if isinstance(found, BadRow):
            yield found
            continue
        where, row = found
        if not isinstance(row, Mapping):
            yield BadRow(where, "a row must be an object")
            continue
        shape = shape or _shape(row, where)
        number = where.rpartition(":")[2]
        try:
            pair = _checked(shape(row, f"{path.name}:{number}"))
        except InputError as error:
            yield BadRow(where, error.what)
            continue
        if pair.id in ids:
            pair = replace(pair, id=f"{pair.id}@{number}")
        ids.add(pair.id)
        yield pair


def _lines(path: Path) -> Iterator[tuple[str, Any] | BadRow]:
    first = next((line for line in text_lines(path) if isinstance(line, BadRow) or line[1].strip()), None)
    if isinstance(first, tuple) and first[1].lstrip().startswith("["):
        # Of an array with a row a line, the last line alone is JSON.
        raise InputError("one JSON array, not a row a line", where=str(path), mend="convert it with: jq -c '.[]'")
    found = jsonlines.read(path, DEFAULT_OPTIONS, None, lambda value, where, _: cast(Any, (where, value)))
    yield from cast(Iterator[tuple[str, Any] | BadRow], found)


def subset_of(pairs: Sequence[LabelledPair], limit: int | None, *, seed: int) -> list[LabelledPair]:
    """`limit` of the pairs, drawn by hash of (seed, id), in the file's order: the first ones are often all of a kind.

    A larger limit only adds pairs.
    """
    if limit is None or limit >= len(pairs):
        return list(pairs)
    drawn = sorted(pairs, key=lambda pair: content_hash("eval", seed, pair.id))[:limit]
    kept = {pair.id for pair in drawn}
    return [pair for pair in pairs if pair.id in kept]


# --- formats ----------------------------------------------------------------------------------------------------------

_ANNOTATOR = re.compile(r"annotator_?\d+")


def _shape(row: Mapping[str, Any], where: str) -> Shape:
    names = set(row)
    if names >= {"prompt", "chosen", "rejected"}:
        return _plain
    if names >= {"input", "output_1", "output_2", "label"}:
        return _llmbar
    if names >= {"instruction", "response1", "response2"} and any(_ANNOTATOR.fullmatch(name) for name in names):
        return _pandalm
    if names >= {"chosen", "rejected"}:
        return _hh
    raise InputError(
        f"no labelled pairs in the columns {', '.join(sorted(str(name)[:40] for name in row)[:12])}",
        where=where,
        mend="give rows {id, prompt, chosen, rejected, subset}, or RewardBench's, LLMBar's, PandaLM's or HH-RLHF's",
    )


def _plain(row: Mapping[str, Any], where: str) -> LabelledPair:
    whole = _whole(row)
    turns, chosen, rejected = whole or (
        _conversation(_get(row, "prompt")),
        _answer(row, "chosen"),
        _answer(row, "rejected"),
    )
    prompt = Prompt.make(turns, source=where)
    share = row.get("p_human")
    if share is not None and (isinstance(share, bool) or not isinstance(share, int | float) or not 0.5 <= share <= 1):
        raise InputError("p_human, the share of people who prefer `chosen`, must be a number from 0.5 to 1")
    if share is None and _tied(row):
        share = 0.5
    return _pair(row, prompt, chosen, rejected, p_human=share)


def _tied(row: Mapping[str, Any]) -> bool:
    """Whether a row of ours, or one with a score of each answer, says that neither is better.

    Raises:
        InputError: its label is a model's, no person's.
    """
    if isinstance(row.get("comparison_id"), str):
        if row.get("source") == "ai":
            raise InputError("labelled by a model (`source` is ai), not by people")
        return row.get("status") == "tie" or row.get("p") == 0.5
    scores = [row.get(name) for name in ("score_chosen", "score_rejected")]
    return None not in scores and scores[0] == scores[1]


def _whole(row: Mapping[str, Any]) -> tuple[Messages, str, str] | None:
    """Prompt and answers where both are whole conversations, which begin with the prompt; None where they are not.

    Raises:
        InputError: they part earlier than at their last answers, or `prompt` is not in what they share.
    """
    if not all(isinstance(row.get(key), list) for key in ("chosen", "rejected")):
        return None
    chosen, rejected = (messages_from(row[key], where=key) for key in ("chosen", "rejected"))
    if chosen[0].role == rejected[0].role == "assistant":
        return None
    shared, *answers = _parted(chosen, rejected)
    asked = row.get("prompt")
    told = [turn.content for turn in (messages_from(asked, where="prompt") if isinstance(asked, list) else ())]
    told += [asked] if isinstance(asked, str) else []
    known = [turn.content.strip() for turn in shared]
    if any(text.strip() not in known for text in told):
        raise InputError("chosen and rejected do not begin with the prompt")
    return shared, answers[0], answers[1]


def _llmbar(row: Mapping[str, Any], where: str) -> LabelledPair:
    label = _whole_number(row.get("label"))
    if label not in (1, 2):
        raise InputError("label must be 1 or 2")
    texts = _text(row, "output_1"), _text(row, "output_2")
    return _pair(row, Prompt.make(_text(row, "input"), source=where), texts[label - 1], texts[2 - label])


def _pandalm(row: Mapping[str, Any], where: str) -> LabelledPair:
    columns = sorted((name for name in row if _ANNOTATOR.fullmatch(name)), key=lambda name: (len(name), name))
    said = [number for name in columns if (number := _whole_number(row[name])) in (0, 1, 2)]
    if len(said) < len(columns):
        raise InputError(f"{', '.join(columns)} must each be 0 (tie), 1 or 2")
    better = 2 if said.count(2) > said.count(1) else 1
    names: dict[int, Label] = {0: "tie", better: "chosen", 3 - better: "rejected"}
    share = (said.count(better) + said.count(0) / 2) / len(said)
    parts = [_text(row, "instruction"), row.get("input") or ""]
    asked = "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())
    texts = _text(row, "response1"), _text(row, "response2")
    return _pair(
        {"id": row.get("idx"), **row},
        Prompt.make(asked, source=where),
        texts[better - 1],
        texts[2 - better],
        p_human=share,
        labels=tuple(names[each] for each in said),
    )


def _hh(row: Mapping[str, Any], where: str) -> LabelledPair:
    shared, chosen, rejected = _parted(*(_turns(_get(row, key), key) for key in ("chosen", "rejected")))
    return _pair(row, Prompt.make(shared, source=where), chosen, rejected)


def _parted(chosen: Messages, rejected: Messages) -> tuple[Messages, str, str]:
    """What two conversations share, and the one answer in which each of them goes on."""
    shared = transcript.common_prefix(chosen, rejected)
    rests = chosen[len(shared) :], rejected[len(shared) :]
    if not any(rests):
        raise InputError("chosen and rejected are the same")
    if any(len(rest) != 1 or rest[0].role != "assistant" for rest in rests):
        raise InputError("chosen and rejected do not part at one last answer")
    return shared, rests[0][0].content, rests[1][0].content


def _pair(
    row: Mapping[str, Any],
    prompt: Prompt,
    chosen: str,
    rejected: str,
    *,
    p_human: float | None = None,
    labels: tuple[Label, ...] = (),
) -> LabelledPair:
    given = row.get("id")
    name = str(given) if isinstance(given, str | int) and str(given).strip() else ""
    subset = row.get("subset")
    name = name or content_hash(prompt.id, chosen, rejected, length=16)
    return LabelledPair(name, prompt, chosen, rejected, subset if isinstance(subset, str) else "", p_human, labels)


def _checked(pair: LabelledPair) -> LabelledPair:
    if pair.chosen.strip() == pair.rejected.strip():
        raise InputError("the two answers are the same")
    texts = [turn.content for turn in pair.prompt.messages] + [pair.chosen, pair.rejected]
    if any("\ud800" <= character <= "\udfff" for text in texts for character in text):
        raise InputError("not valid Unicode (half of a surrogate pair)")
    return pair


def _whole_number(value: Any) -> int | None:
    """A label; tables write 1.0 for 1. None for anything else."""
    sound = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if sound else None


def _get(row: Mapping[str, Any], key: str) -> Any:
    if key not in row:
        raise InputError(f"no field {key!r}")
    return row[key]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = _get(row, key)
    if not isinstance(value, str):
        raise InputError(f"{key} must be a text")
    return value


def _conversation(value: Any) -> Messages:
    turns = transcript.asked(value) if isinstance(value, str) else messages_from(value, where="prompt")
    if not turns[-1].content.strip():
        raise InputError("empty prompt")
    return turns


def _answer(row: Mapping[str, Any], key: str) -> str:
    """A text; or of a list of messages, which some data sets hold beside the prompt, the last answer."""
    value = _get(row, key)
    if isinstance(value, list):
        turns = messages_from(value, where=key)
        if turns[-1].role != "assistant":
            raise InputError(f"{key} does not end with the assistant's answer")
        return turns[-1].content
    return _text(row, key)


def _turns(value: Any, key: str) -> Messages:
    return transcript.parse(value) if isinstance(value, str) else messages_from(value, where=key)
