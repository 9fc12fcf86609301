"""What a file of prompts holds, in numbers; no prompt's text leaves it."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cai.prompts.idset import IdSet
from cai.prompts.near import NearIndex, whole
from cai.prompts.rows import BadRow
from cai.records import Prompt

PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
SAMPLE = 5000
LONGEST = 5


@dataclass(frozen=True)
class _Sampled:
    """Orders a heap by id, largest first, and by nothing else."""

    prompt: Prompt

    def __lt__(self, other: _Sampled) -> bool:
        return self.prompt.id > other.prompt.id


def percentiles(counts: Counter[int]) -> dict[str, int]:
    """`{"p0": least, ..., "p100": greatest}` by nearest rank of a histogram; empty for an empty one."""
    total = counts.total()
    if not total:
        return {}
    found: dict[str, int] = {}
    left = list(PERCENTILES)
    seen = 0
    for value, count in sorted(counts.items()):
        seen += count
        while left and seen >= max(1, -(-left[0] * total // 100)):
            found[f"p{left.pop(0)}"] = value
    return found


def stats(rows: Iterable[Prompt | BadRow], *, near: float = 0.85, sample: int = SAMPLE) -> dict[str, Any]:
    """Counts of `rows` as one JSON object. Streams; memory does not grow but for 20 bytes a row.

    Near-duplicates are looked for among at most `sample` distinct prompts (those with the least ids, which is as
    good as at random and the same every time). In a sample most pairs are torn apart, so its share is a lower bound.
    """
    read = skipped = distinct = single_speaker = 0
    tags, turns, characters, words = Counter[str](), Counter[int](), Counter[int](), Counter[int]()
    ids = IdSet()
    longest: list[tuple[int, str, str]] = []
    sampled: list[_Sampled] = []
    for row in rows:
        if isinstance(row, BadRow):
            skipped += 1
            continue
        read += 1
        tags.update(row.tags or ("(none)",))
        turns[len(row.messages)] += 1
        roles = [turn.role for turn in row.messages]
        single_speaker += any(a == b for a, b in itertools.pairwise(roles))
        text = whole(row)
        characters[len(text)] += 1
        words[len(text.split())] += 1
        if not ids.add(row.id):
            continue
        distinct += 1
        heapq.heappush(longest, (len(text), row.id, row.source))
        heapq.heappush(sampled, _Sampled(row))
        if len(longest) > LONGEST:
            heapq.heappop(longest)
        if len(sampled) > sample:
            heapq.heappop(sampled)
    return {
        "rows": read,
        "skipped": skipped,
        "tags": dict(tags.most_common()),
        "turns": {str(count): number for count, number in sorted(turns.items())},
        "same_speaker_twice": single_speaker,
        "characters": percentiles(characters),
        "words": percentiles(words),
        "exact_duplicates": {"rows": read - distinct, "share": round((read - distinct) / read, 6) if read else 0.0},
        "near_duplicates": _near(sampled, distinct, near),
        "longest": [
            {"id": prompt_id, "characters": length, "source": source}
            for length, prompt_id, source in sorted(longest, reverse=True)
        ],
    }


def _near(sampled: list[_Sampled], distinct: int, near: float) -> dict[str, Any]:
    index = NearIndex(near)
    found = sum(index.match(item.prompt) is not None for item in sorted(sampled, reverse=True))
    return {
        "rows": found,
        "of": len(sampled),
        "share": round(found / len(sampled), 6) if sampled else 0.0,
        "similarity": near,
        "lower_bound": len(sampled) < distinct,
    }
