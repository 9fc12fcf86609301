"""The openai backend against a server that misbehaves: alone, and with the engine."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from cai.backends.openai import Config, build
from cai.engine import Completion, Engine, RetryPolicy
from cai.errors import BackendError, ContextOverflow, InputError, PromptRefused
from tests.backends.asked import answer, ask, failure
from tests.backends.troubled import CANARY, Action, Handler, Server, body, drip, good, half, silence, status

pytestmark = pytest.mark.usefixtures("key")


@pytest.mark.parametrize("code", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_pass(server: Server, code: int) -> None:
    error = failure(server, status(code, "slow\ndown"))
    assert error.retryable
    assert error.retry_after is None
    assert error.where == server.url
    assert f"HTTP {code}" in error.what
    assert "slow down" in error.what
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0.25", 0.25, 0.25),
        ("0", 0, 0),
        ("-3", 0, 0),
        ("soon", None, None),
        ("nan", None, None),
        ("", None, None),
        (None, 300, 500),
    ],
    ids=["whole", "broken", "none", "negative", "words", "nan", "empty", "date"],
)
def test_a_server_may_say_when_to_ask_again(server: Server, header: str | None, low: float | None, high: float) -> None:
    if header is None:  # a date, of now and not of when the tests were collected
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=500), usegmt=True)
    error = failure(server, status(429, Retry_After=header))
    if low is None:
        assert error.retry_after is None
    else:
        assert error.retry_after is not None
        assert low <= error.retry_after <= high


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        (400, ""),
        (401, "set OPENAI_API_KEY to a key that this server accepts"),
        (403, "set OPENAI_API_KEY to a key that this server accepts"),
        (404, "does the server have the model 'small'?"),
        (422, ""),
    ],
)
def test_a_status_that_asking_again_does_not_help(server: Server, code: int, mend: str) -> None:
    error = failure(server, status(code))
    assert not error.retryable
    assert not isinstance(error, ContextOverflow)
    assert error.mend == mend


@pytest.mark.parametrize(
    "message",
    [
        "System role not supported",
        "Conversation roles must alternate user/assistant/user/assistant/...",
        "Only user and assistant roles are supported!",
    ],
)
def test_what_the_system_says_stands_before_the_user_where_the_model_has_no_such_turn(
    server: Server, message: str
) -> None:
    def act(request: Handler, number: int) -> Action | None:
        return status(400, message) if request.body["messages"][0]["role"] == "system" else None

    server.act = act
    assert answer(server).text
    assert [turn["content"] for turn in server.asked[-1].body["messages"]] == ["Be kind.\n\nHello"]
    assert len(server.asked) == 2
    server.act = lambda request, number: status(400, message)  # it is not the system turn
    with pytest.raises(BackendError, match=f"HTTP 400: .*{message[:20]}"):
        answer(server)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"),
        (400, "x" * 400 + " maximum context length"),
        (400, "The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        (400, "the request exceeds the available context size. try increasing it"),
        (400, "Error code: context_length_exceeded"),
        (413, "prompt is too long: 210000 tokens > 200000 maximum"),
        (400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
        (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 2000 and 500"),
        (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
    ],
)
def test_a_prompt_that_does_not_fit(server: Server, code: int, message: str) -> None:
    error = failure(server, status(code, message))
    assert isinstance(error, ContextOverflow)
    assert not error.retryable


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        ({"code": "content_filter", "message": "The response was filtered"}, True),
        ({"code": "content_policy_violation", "message": "rejected by our safety system"}, True),
        ({"message": "the prompt triggered the content management policy"}, True),
        ({"code": "invalid_request", "message": "the model does not know this parameter"}, False),
    ],
)
def test_a_prompt_that_a_filter_refuses_is_no_sign_of_an_outage(
    server: Server, error: dict[str, str], refused: bool
) -> None:
    found = failure(server, lambda request: request.say(400, {"error": error}))
    assert isinstance(found, PromptRefused) is refused
    assert not found.retryable


@pytest.mark.parametrize(
    "act",
    [
        body(b"<html>gateway</html>", Content_Type="text/html"),
        body(b"<html>gateway</html>"),
        body(b""),
        body(b'{"choices": [{"mess'),
        body(b"\xff\xfe\x00"),
        body({}),
        body([]),
        body("text"),
        body(None),
        body({"choices": []}),
        body({"choices": [{"index": 0, "finish_reason": "stop"}]}),
        body({"choices": [{"message": {"content": ["parts"]}}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        body({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}),
        half,
        Handler.hang_up,
    ],
    ids=[
        *("a page", "a page as JSON", "nothing", "half JSON", "no text", "an object", "a list", "a string", "null"),
        *("no choices", "no message", "parts", "counts in words", "half a body", "no body"),
    ],
)
def test_an_answer_that_is_none_is_asked_again(server: Server, act: Action) -> None:
    error = failure(server, act)
    assert error.retryable
    assert error.where == server.url


@pytest.mark.parametrize("act", [silence, drip], ids=["silence", "drip"])
def test_an_answer_that_takes_too_long_is_given_up(server: Server, act: Action) -> None:
    begun = time.monotonic()
    error = failure(server, act, timeout=0.4)
    assert error.retryable
    assert error.what == "no answer within 0.4 s"
    assert time.monotonic() - begun < 15  # the server waits for longer


def test_waiting_for_a_seat_is_not_part_of_an_answers_time(server: Server) -> None:
    def slow(request: Handler) -> None:
        time.sleep(0.5)
        good(request)

    server.act = lambda request, number: slow

    async def main() -> list[Completion]:
        backend = build(Config(url=server.url, model="small", seats=1, timeout=5.0), seed=0)
        assert backend.seats == 1
        try:
            return await asyncio.gather(*(backend.generate(ask(seed=number)) for number in range(12)))
        finally:
            await backend.close()

    assert len(asyncio.run(main())) == 12


def test_no_server_at_all(server: Server) -> None:
    server.stop()
    with pytest.raises(BackendError, match="the connection failed") as caught:
        answer(server)
    assert caught.value.retryable


def test_cancelling_hangs_up(server: Server) -> None:
    server.act = lambda request, number: silence

    async def main() -> None:
        backend = build(Config(url=server.url, model="small"), seed=0)
        task = asyncio.create_task(backend.generate(ask()))
        while not server.asked:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait((task,), timeout=5)
        assert task.cancelled()
        await backend.close()
        connection = server.asked[0].connection
        connection.settimeout(5)
        assert connection.recv(1) == b""  # the client has closed it

    asyncio.run(main())


@pytest.mark.parametrize(
    "act", [status(401, f"Incorrect API key: {CANARY}"), status(500, f"x {CANARY} y")], ids=["401", "500"]
)
def test_a_server_that_repeats_the_key_is_not_quoted(server: Server, act: Action) -> None:
    error = failure(server, act)
    assert CANARY not in str(error)
    assert "***" in error.what


def test_a_key_that_no_header_can_carry(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (f"{CANARY}\n{CANARY}", f"{CANARY}é", f"{CANARY} x"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(InputError, match="environment variable OPENAI_API_KEY: holds a line break") as caught:
            answer(server)
        assert CANARY not in str(caught.value)


def test_every_kind_of_trouble_passes_with_retries(server: Server) -> None:
    troubles = [
        status(429, Retry_After="0.01"),
        status(500),
        status(503),
        body(b"<html>"),
        body({}),
        half,
        silence,
        drip,
    ]
    troubles.append(Handler.hang_up)
    server.act = lambda request, number: troubles[number - 1] if number <= len(troubles) else None

    async def main() -> Engine:
        backend = build(Config(url=server.url, model="small", timeout=0.3), seed=0)
        policy = RetryPolicy(attempts=len(troubles) + 1, first=0.001, longest=0.01)
        engine = Engine({"policy": backend}, retry=policy)
        try:
            assert (await engine.generate(ask())).text
        finally:
            await engine.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return engine

    engine = asyncio.run(main())
    assert engine.usage.retries == len(troubles)
    assert len(server.asked) == len(troubles) + 1
