"""Judges behind a server that tells only its likeliest tokens, through the real backend for such servers."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from cai.backends.openai import Config, build
from cai.engine import Engine
from cai.judges.rating import Config as RatingConfig
from cai.judges.rating import compare, rater
from cai.judging import Judge, Question
from cai.records import Group, Prompt, Vote
from tests.judges.fakes import group, judge

Tokens = Callable[[str], dict[str, float]]
"""Probabilities of the tokens that are told, by the prompt's last turn."""


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Tokens], str]]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    made: list[ThreadingHTTPServer] = []

    def start(tokens: Tokens) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                told = tokens(asked["messages"][-1]["content"])
                top = [{"token": name, "logprob": math.log(p), "bytes": None} for name, p in told.items()]
                first = {"token": top[0]["token"], "logprob": top[0]["logprob"], "bytes": None, "top_logprobs": top}
                message = {"role": "assistant", "content": first["token"]}
                choice = {"index": 0, "finish_reason": "length", "message": message, "logprobs": {"content": [first]}}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                row = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                data = json.dumps(row | {"usage": usage}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                return None

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        made.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def votes_of(asked: Judge, of: Group, url: str) -> tuple[Vote, ...]:
    async def ask() -> tuple[Vote, ...]:
        engine = Engine({"judge": build(Config(url=url, model="m"), seed=0)})
        try:
            items = of.comparisons() if asked.unit == "pair" else (of,)
            return tuple([vote for item in items for vote in await asked(item, Question(), engine.generate)])
        finally:
            await engine.close()

    return asyncio.run(ask())


FOUR = group("one", "two", "three", "four")


def test_of_two_letters_beyond_the_list_nothing_is_said(serve: Callable[[Tokens], str]) -> None:
    url = serve(lambda prompt: {"A": 0.6, "B": 0.3, "The": 0.05, "I": 0.001})
    votes = votes_of(judge("listwise", rotations="one"), FOUR, url)
    by_letters = {frozenset(vote.raw["letters"]): vote for vote in votes}
    assert len(by_letters) == 6
    both = by_letters.pop(frozenset("CD"))
    assert (both.error, both.p_a) == ("unread", None)
    for letters, vote in by_letters.items():
        assert vote.error is None
        assert vote.mass == pytest.approx(0.9)  # C and D add nothing
        if len(letters & set("AB")) == 1:
            assert vote.p_a is not None
            first = letters & set("AB") == {vote.raw["letters"][0]}
            least = 0.001 / (0.001 + (0.6 if "A" in letters else 0.3))
            assert vote.p_a == pytest.approx(1 - least if first else least)


def test_a_letter_beyond_the_list_is_no_certainty_and_no_mass(serve: Callable[[Tokens], str]) -> None:
    of = group("one", "two")
    url = serve(lambda prompt: {"The": 0.5, "A": 0.3, "I": 0.15})
    for vote in votes_of(judge("logprob", min_mass=0.2), of, url):
        p_first = vote.p_a if vote.order == "ab" else 1 - (vote.p_a or 0)
        assert p_first == pytest.approx(0.3 / (0.3 + 0.05))  # B has at most what the list leaves
        assert vote.mass == pytest.approx(0.3)
        assert vote.raw["unseen"] == [1]
    # Only what was seen counts as mass: 0.3, not 0.35.
    assert {vote.error for vote in votes_of(judge("logprob", min_mass=0.32), of, url)} == {"low_mass"}


@pytest.mark.parametrize("method", ["logprob", "listwise", "cot", "rating"])
def test_where_nothing_was_seen_there_is_no_verdict_whatever_mass_is_asked(
    method: str, serve: Callable[[Tokens], str]
) -> None:
    url = serve(lambda prompt: {"The": 0.9, "I": 0.05})
    votes = votes_of(judge(method, min_mass=0.0), group("one", "two"), url)
    assert votes
    assert {(vote.error, vote.p_a) for vote in votes} == {("unread", None)}


def test_ratings_that_were_not_seen_do_not_raise_the_expectation(serve: Callable[[Tokens], str]) -> None:
    def tokens(last: str) -> dict[str, float]:
        # The last turn is the reply begun for the model; behind a "1" it goes on with no digit.
        return {"]": 0.9, ".": 0.05} if last.endswith("1") else {"1": 0.5, "2": 0.3, "The": 0.1, "I": 0.04}

    async def ask() -> Any:
        engine = Engine({"judge": build(Config(url=serve(tokens), model="m"), seed=0)})
        try:
            made = rater(RatingConfig())
            return await made.score(Prompt.make("Why?"), "Because.", "", engine.generate)
        finally:
            await engine.close()

    found = asyncio.run(ask())
    assert found.error is None
    assert found.mass == pytest.approx(0.8)
    assert found.p == pytest.approx((0.625, 0.375, *[0.0] * 8))
    assert found.expectation == pytest.approx(1.375)
    raw = compare(found, found).raw
    assert raw is not None
    assert raw["equal"] == pytest.approx(0.625**2 + 0.375**2)
