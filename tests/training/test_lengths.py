"""What is too long is said; where an answer begins."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("trl")

from cai.errors import InputError
from cai.records import Message
from cai.training.algorithms.sft import answer_begins
from cai.training.data import PairSource, tokens
from cai.training.models import load_tokenizer
from tests.training import tiny_rl
from tests.training.jobs import job, train
from tests.training.test_pairs import preferences, write

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.mark.parametrize("name", ["rm", "dpo"])
def test_groups_that_are_too_long_are_said(tmp_path: Path, name: str) -> None:
    told: list[str] = []
    rows = preferences(4, answers=2) + preferences(6, answers=12)[4 * 66 :]
    given = job(tmp_path, name, say=told.append, pairs=(PairSource("ai", write(tmp_path / "long", rows)),))
    given = dataclasses.replace(given, trl={"no_such_key": 1})  # which ends it before anything is loaded
    for limit, left in ((16, 4), (64, 6)):
        told.clear()
        with pytest.raises(InputError, match="no_such_key"):
            train(given, max_length=limit)
        assert f"in {left} groups" in told[-1]
        assert told[:-1] == ([f"2 groups with a row of over {limit} tokens were left out whole"] if left == 4 else [])


def test_an_answer_begins_where_the_prompt_and_the_conversation_part(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_rl.write_model(tmp_path / "model"))
    messages = (Message("user", "say red"), Message("assistant", "red green"))
    ids = tokens(tokenizer, messages)
    begins = answer_begins(tokenizer, messages, ids)
    assert tokenizer.decode(ids[begins:]).split()[:2] == ["red", "green"]
    # A template that opens an answer with words that a given answer does not have.
    tokenizer.chat_template = tiny_rl.TEMPLATE.replace("{{ '<assistant>' }}", "{{ '<assistant> hello' }}")
    assert answer_begins(tokenizer, messages, ids) == begins


def test_a_template_that_writes_the_day_trains_on_the_day_that_generation_saw(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_rl.write_model(tmp_path / "model"))
    tokenizer.chat_template = "{{ 'red' if strftime_now('%Y') == '2024' else 'green' }}"
    assert tokenizer.decode(tokens(tokenizer, (Message("user", "say red"),))).split() == ["red"]
