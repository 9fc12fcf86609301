"""Written YAML reads back equal and looks as a person would write it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai.constitution.model import ConstitutionFile, Example, FewShot, Level, Principle, Selector
from cai.constitution.writing import constitution_yaml, dump, principle_yaml
from cai.yamlfile import parse, validate

TEXT = st.one_of(
    st.text(),
    st.text(st.sampled_from("ab \n\t:#-'\"\\|>{}[]&*!%@`,?0123456789eE.+~\x85\u2028\ufeff\ré")),
    st.text(st.sampled_from("word \n."), min_size=80, max_size=300),
    st.text(st.sampled_from("long  \té:#\u00a0\u3000"), min_size=82, max_size=300),  # one line, to be folded or not
    st.builds("{}{}{}".format, *[st.text(" \t\n", max_size=3), st.text("aword ", min_size=80), st.text(" \t\n")]),
    st.sampled_from(
        ["010", "0o7", "1e3", "no", "on", "12:30", "null", "~", "", "1_000", "=", "<<", "---", "a\n---\nb"]
    ),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_any_json_reads_back_equal(value: Any) -> None:
    assert parse(dump({"k": value})).data == {"k": value}


def test_a_principle_looks_as_written_by_hand() -> None:
    long = "Point out where the last answer tells the user what to feel, and say which words do that. Be specific."
    principle = Principle(
        id="no-lectures",
        title="No lectures",
        critique=long,
        revision="Rewrite it: without the lecture.",
        judge="Which answer lectures less?\n\nWeigh tone,\nnot length.\n",
        axis="helpful",
        tags=("tone",),
        examples=(Example(prompt="Hi", better="Hello!", worse="One should greet properly."),),
    )
    assert principle_yaml(principle) == (
        "# yaml-language-server: $schema=../schema/principle.schema.json\n"
        "id: no-lectures\n"
        "title: No lectures\n"
        "critique: >-\n"
        "  Point out where the last answer tells the user what to feel, and say which words do that. Be specific.\n"
        "revision: 'Rewrite it: without the lecture.'\n"
        "judge: |\n"
        "  Which answer lectures less?\n"
        "\n"
        "  Weigh tone,\n"
        "  not length.\n"
        "axis: helpful\n"
        "tags:\n"
        "  - tone\n"
        "examples:\n"
        "  - prompt: Hi\n"
        "    better: Hello!\n"
        "    worse: One should greet properly.\n"
    )
    assert validate(parse(principle_yaml(principle)), Principle) == principle


@pytest.mark.parametrize(
    "text",
    [
        *("no", "12", "  led\nby spaces", "trailing \nspace", "tab\there", "\n\nframe\n\n", "# x"),
        *(" long " * 20, " " + "long" * 30 + " and on"),
    ],
)
def test_texts_survive_in_every_field(text: str) -> None:
    file = ConstitutionFile(
        name="x",
        title=text,
        system_prompt=text,
        levels=(Level(name="only", meaning=text),),
        principles=(Selector(tag="t", weight=0.5, level="only"), Selector(id="no", level="only")),
        few_shot=(FewShot(text=text),),
        source={"anthropic": {text: [text]}},
    )
    assert validate(parse(constitution_yaml(file)), ConstitutionFile) == file
