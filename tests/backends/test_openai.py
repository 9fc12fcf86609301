"""The openai backend: what is sent, what comes back, and who it says it is."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest

from cai.backends import bound_of, unseen
from cai.backends.openai import UNFILTERED, Config, _choice_logprobs, build, fingerprint
from cai.engine import LOWEST, Completion, Request, Sampling
from cai.errors import BackendError, InputError, PromptRefused
from cai.records import Message
from tests.backends.asked import answer, ask, failure
from tests.backends.troubled import CANARY, Action, Handler, Server, body, said, status

pytestmark = pytest.mark.usefixtures("key")


def test_what_is_sent(server: Server) -> None:
    found = answer(
        server, ask(max_tokens=9, temperature=0.5, top_p=0.9, top_k=4, stop=("x", "y")), extra={"min_p": 0.1}
    )
    (request,) = server.asked
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {CANARY}"
    assert request.body == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["x", "y"],
        "top_k": 4,
        "min_p": 0.1,
    }
    assert (found.prompt_tokens, found.completion_tokens, found.finish_reason) == (11, 20, "stop")
    assert found.model == fingerprint(Config(url=server.url, model="small", extra={"min_p": 0.1}))


def test_raw_text_goes_to_the_other_address(server: Server) -> None:
    found = answer(server, ask("Once upon"))
    (request,) = server.asked
    assert request.path == "/v1/completions"
    assert request.body["prompt"] == "Once upon"
    assert "top_k" not in request.body
    assert found.text.endswith(".")


@pytest.mark.parametrize("text", ["ä 日本 🙂", "", "a\u2028b", "x" * 100_000])
def test_any_answer_comes_back_as_it_is(server: Server, text: str) -> None:
    server.act = lambda request, number: said(text, "length", prompt_tokens_details={"cached_tokens": 5})
    found = answer(server)
    assert (found.text, found.finish_reason, found.cached_tokens) == (text, "length", 5)


def letters(tokens: dict[str, float]) -> Action:
    """The log-probabilities of a first token, as each of the two interfaces tells them."""

    def act(request: Handler) -> None:
        if request.chat:
            top = [{"token": token, "logprob": value, "bytes": None} for token, value in tokens.items()]
            told: dict[str, Any] = {"content": [{"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
            content: dict[str, Any] = {"message": {"role": "assistant", "content": "A"}, "logprobs": told}
        else:
            told = {"tokens": ["A"], "token_logprobs": [-0.1], "top_logprobs": [tokens], "text_offset": [0]}
            content = {"text": "A", "logprobs": told}
        usage = {"prompt_tokens": 11, "completion_tokens": 1, "total_tokens": 12}
        choice = {"index": 0, "finish_reason": "length", **content}
        request.say(200, {"id": "1", "object": "x", "created": 1, "model": "m", "choices": [choice], "usage": usage})

    return act


def test_of_choices_that_are_not_among_the_likeliest_nothing_is_known() -> None:
    told = SimpleNamespace(logprobs=SimpleNamespace(content=None, top_logprobs=[{"X": -0.1, "Y": -3.0}]))
    found = _choice_logprobs(told, ("A", "B"))
    assert max(found) < LOWEST
    # What X and Y leave is less than Y has.
    rest = math.log(1 - math.exp(-0.1) - math.exp(-3))
    assert [bound_of(value) for value in found] == pytest.approx([rest, rest])


@pytest.mark.parametrize("chat", [True, False])
def test_choices_are_read_from_the_first_tokens_log_probabilities(server: Server, chat: bool) -> None:
    server.act = lambda request, number: letters({"A": -1.0, " A": -2.0, "B": -3.0, "An": -2.5})
    prompt = (Message("user", "A or B?"), Message("assistant", "It is")) if chat else "A or B? It is"
    backend = build(Config(url=server.url, model="small"), seed=0)

    async def ask() -> Completion:
        try:
            return await backend.generate(Request(prompt, Sampling(), 0, choices=("A", "B", "C")))
        finally:
            await backend.close()

    found = asyncio.run(ask())
    both = math.log(math.exp(-1) + math.exp(-2))
    # C is not among them: at most as likely as the least that is, and not to be counted.
    assert found.choice_logprobs == pytest.approx((both, -3.0, unseen(-3.0)))
    assert bound_of(found.choice_logprobs[2]) == pytest.approx(-3.0)
    assert bound_of(found.choice_logprobs[1]) is None
    (request,) = server.asked
    assert request.body["max_tokens"] == 1
    if chat:
        assert request.body["top_logprobs"] == 20
        assert request.body["continue_final_message"] is True
        assert request.body["add_generation_prompt"] is False


def test_a_server_without_log_probabilities_is_said_to_be_one(server: Server) -> None:
    backend = build(Config(url=server.url, model="small"), seed=0)

    async def ask() -> Completion:
        try:
            return await backend.generate(Request((Message("user", "A or B?"),), Sampling(), 0, choices=("A", "B")))
        finally:
            await backend.close()

    with pytest.raises(BackendError, match="sends no log-probabilities") as found:
        asyncio.run(ask())
    assert not found.value.retryable


@pytest.mark.parametrize("prompt", [None, "Once upon"], ids=["chat", "text"])
def test_vllm_is_told_all_that_it_would_else_take_from_the_models_files(server: Server, prompt: Any) -> None:
    server.owner = "vllm"
    answer(server, ask(prompt))
    answer(server, ask(prompt, top_k=4), extra={"min_p": 0.1})
    answer(server, ask(prompt), model="alias")  # not in its list: somebody else's, behind the same address
    plain, changed, other = (request.body for request in server.asked)
    filters = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    assert [plain[name] for name in filters] == [-1, 0.0, 1.0, 0.0, 0.0]
    assert [changed[name] for name in filters] == [4, 0.1, 1.0, 0.0, 0.0]
    assert not other.keys() & set(filters)


@pytest.mark.parametrize("lists", [status(404), status(401), body(b"<html>"), body({}), body({"data": ["small"]})])
def test_a_server_that_lists_no_models_is_not_vllm(server: Server, lists: Action) -> None:
    server.lists = lists
    answer(server)
    (request,) = server.asked
    assert "repetition_penalty" not in request.body


def test_which_server_it_is_is_asked_until_it_says_so_and_then_no_more(server: Server) -> None:
    server.owner = "vllm"

    async def main() -> None:
        backend = build(Config(url=server.url, model="small"), seed=0)
        try:
            server.lists = status(503)
            with pytest.raises(BackendError, match=r"list of models fails: HTTP 503.*server that has none") as found:
                await backend.generate(ask())
            assert found.value.retryable
            server.lists = None
            await asyncio.gather(*(backend.generate(ask(seed=number)) for number in range(5)))
        finally:
            await backend.close()

    asyncio.run(main())
    assert server.listed == 2
    answer(server, ask(), extra=dict(UNFILTERED))
    assert server.listed == 2, "nothing is left open"
    server.asked.pop()
    assert [request.body["repetition_penalty"] for request in server.asked] == [1.0] * 5


@pytest.mark.parametrize(
    ("told", "meant"), [("stop", "stop"), (None, "stop"), ("tool_calls", "stop"), ("repetition", "length")]
)
def test_how_an_answer_ended(server: Server, told: Any, meant: str) -> None:
    server.act = lambda request, number: said("Fine.", told)
    assert answer(server).finish_reason == meant


@pytest.mark.parametrize("told", ["content_filter", "abort", "error"])
def test_an_answer_that_was_cut_by_others_is_none(server: Server, told: str) -> None:
    error = failure(server, said("Half of", told))
    assert isinstance(error, PromptRefused) is (told == "content_filter")
    assert error.retryable is (told != "content_filter")


def test_no_content_is_an_empty_answer_for_the_method_to_judge(server: Server) -> None:
    server.act = lambda request, number: said(None)
    assert answer(server).text == ""


def test_no_key_is_needed_where_none_is_set(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    answer(server)
    monkeypatch.setenv("OTHER_KEY", f" {CANARY}\n")  # as `export KEY=$(cat file)` may leave it
    answer(server, api_key_env="OTHER_KEY")
    assert [request.headers["authorization"] for request in server.asked] == ["Bearer none", f"Bearer {CANARY}"]


def test_a_url_that_is_none() -> None:
    with pytest.raises(InputError, match="must begin with http:// or https://"):
        build(Config(url="localhost:8000", model="m"), seed=0)


def test_the_fingerprint_is_of_the_model_the_place_and_the_extras() -> None:
    config = Config(url="http://a/v1", model="m")
    for same in (
        Config(url="http://a/v1", model="m", seats=2, timeout=1, api_key_env="X", length_field="max_completion_tokens"),
        Config(url="https://A/v1/", model="m"),
    ):
        assert fingerprint(config) == fingerprint(same)
    others = [
        Config(url=url, model="m") for url in ("http://b/v1", "http://a:81/v1", "http://a/v2", "http://127.0.0.1/v1")
    ]
    others += [Config(url="http://a/v1", model="n"), Config(url="http://a/v1", model="m", extra={"min_p": 1})]
    assert len({fingerprint(each) for each in (config, *others)}) == 7


def test_a_server_on_this_machine_may_come_back_on_another_port() -> None:
    urls = ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1", "http://localhost:9/v1", "http://[::1]:9/v1")
    assert len({fingerprint(Config(url=url, model="m")) for url in urls}) == 1
    assert fingerprint(Config(url=urls[0], model="m", identity="one")) != fingerprint(Config(url=urls[0], model="m"))
    moved = [Config(url=url, model="m", identity="ours") for url in ("http://old/v1", "https://new:444/v1")]
    assert len({fingerprint(each) for each in moved}) == 1
    assert fingerprint(Config(url="http://[::1/v1", model="m"))  # no address: that is for the client to say


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": 3}])
def test_an_answer_without_counts_is_an_answer(server: Server, usage: dict[str, Any] | None) -> None:
    told = {"choices": [{"message": {"content": "Fine."}, "finish_reason": "stop"}]}
    server.act = lambda request, number: body(told if usage is None else told | {"usage": usage})
    found = answer(server, ask())
    assert (found.text, found.prompt_tokens) == ("Fine.", 0)
    assert found.completion_tokens == (usage or {}).get("completion_tokens", 0)


def test_the_limit_of_tokens_goes_by_the_name_that_the_server_knows(server: Server) -> None:
    answer(server, ask(max_tokens=9), length_field="max_completion_tokens")
    (request,) = server.asked
    assert request.body["max_completion_tokens"] == 9
    assert "max_tokens" not in request.body
