"""Counts of prompts, against counting by hand."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cai.prompts import BadRow
from cai.prompts.stats import percentiles, stats
from cai.records import Message, Prompt


def test_counts() -> None:
    talk = (Message("user", "one two"), Message("assistant", "three"), Message("user", "four"), Message("user", "5"))
    found = stats(
        [
            Prompt.make("a b c", tags=("x", "y")),
            Prompt.make("a b c", tags=("x",)),
            BadRow("f:3", "empty prompt"),
            Prompt.make("A  b c"),
            Prompt.make(talk, source="f:4"),
        ]
    )
    assert (found["rows"], found["skipped"]) == (4, 1)
    assert found["tags"] == {"x": 2, "(none)": 2, "y": 1}
    assert found["turns"] == {"1": 3, "4": 1}
    assert found["same_speaker_twice"] == 1
    assert found["words"]["p50"] == 3
    assert found["words"]["p100"] == 5
    assert found["exact_duplicates"] == {"rows": 1, "share": 0.25}
    assert found["near_duplicates"] | {"share": 0} == {
        "rows": 1, "of": 3, "share": 0, "similarity": 0.85, "lower_bound": False
    }  # fmt: skip
    assert found["longest"][0] == {"id": Prompt.make(talk).id, "characters": 20, "source": "f:4"}
    assert "three" not in json.dumps(found)


def test_no_rows() -> None:
    found = stats([])
    assert found["rows"] == 0
    assert found["near_duplicates"]["share"] == 0


def test_a_sample_says_that_it_is_one_and_does_not_depend_on_the_order() -> None:
    prompts = [Prompt.make(f"{i} question about {i * i}") for i in range(100)]
    found = stats(prompts, sample=20)
    assert (found["near_duplicates"]["of"], found["near_duplicates"]["lower_bound"]) == (20, True)
    assert stats(prompts[::-1], sample=20)["near_duplicates"] == found["near_duplicates"]
    assert len(found["longest"]) == 5


@given(st.lists(st.integers(0, 1000), min_size=1))
def test_percentiles_are_those_of_the_sorted_list(values: list[int]) -> None:
    found = percentiles(Counter(values))
    ordered = sorted(values)
    assert found["p0"] == ordered[0]
    assert found["p100"] == ordered[-1]
    assert found["p50"] == ordered[-(-len(ordered) // 2) - 1]
    assert list(found.values()) == sorted(found.values())
