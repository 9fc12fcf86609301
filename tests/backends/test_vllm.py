"""What the vLLM backend decides before vLLM is loaded; the rest is in tests/real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cai.backends import vllm
from cai.engine import Engine, Request, Sampling
from cai.errors import BackendError, InputError, PromptRefused
from cai.records import Message


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return folder


def test_the_fingerprint_takes_automatic_precision_for_bfloat16_wherever_it_runs(model: Path) -> None:
    auto, same, other = (
        vllm.fingerprint(vllm.Config(model=str(model), dtype=dtype)) for dtype in ("auto", "bfloat16", "float32")
    )
    assert auto == same != other


@pytest.mark.parametrize(
    ("engine", "same"),
    [
        ({"max_num_batched_tokens": 2048, "block_size": 32}, True),
        ({"quantization": "fp8"}, False),
        ({"hf_overrides": {"rope_theta": 1.0}}, False),
    ],
)
def test_engine_arguments_that_change_the_model_change_its_fingerprint(
    model: Path, engine: dict[str, Any], same: bool
) -> None:
    plain = vllm.fingerprint(vllm.Config(model=str(model)))
    assert (vllm.fingerprint(vllm.Config(model=str(model), engine=engine)) == plain) is same


@pytest.mark.parametrize(
    ("file", "safetensors", "changes", "counts"),
    [
        ("pytorch_model.bin", False, {}, True),
        ("model.pt", False, {}, True),
        ("consolidated.00.pth", False, {}, True),
        ("model.safetensors", True, {}, True),
        ("training_args.bin", True, {}, False),  # beside safetensors vLLM reads none of them
        ("pytorch_model.bin", True, {"engine": {"load_format": "pt"}}, True),
        ("modeling.py", True, {"trust_remote_code": True}, True),
        ("modeling.py", True, {}, False),
    ],
)
def test_what_vllm_reads_of_a_model_is_in_its_fingerprint(
    model: Path, file: str, safetensors: bool, changes: dict[str, Any], counts: bool
) -> None:
    if not safetensors:
        (model / "model.safetensors").unlink()
    found = set()
    for content in (b"first" * 1000, b"other" * 1000):
        (model / file).write_bytes(content)
        found.add(vllm.fingerprint(vllm.Config(model=str(model), **changes)))
    assert (len(found) == 2) is counts


def test_what_cannot_be_read_is_named_with_its_mend(model: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.jinja").write_bytes(b"\xe4")
    for template, told in (
        ("typo.jinja", "typo.jinja: cannot read it: No such file or directory (check `chat_template`)"),
        ("latin.jinja", "latin.jinja: not UTF-8 text (check `chat_template`)"),
        ("small", "small: cannot read it: Is a directory (check `chat_template`)"),
    ):
        with pytest.raises(InputError) as caught:
            vllm.fingerprint(vllm.Config(model=str(model), chat_template=str(tmp_path / template)))
        assert str(caught.value) == f"{tmp_path}/{told}"
    whole = vllm.fingerprint(vllm.Config(model=str(model)))
    for name in ("tokenizer.json", "more.safetensors"):
        (model / name).symlink_to(tmp_path / "gone")
        with pytest.raises(InputError, match=f"{name}: cannot read it: No such file.*download the model again"):
            vllm.fingerprint(vllm.Config(model=str(model)))
        (model / name).unlink()
    (model / "folder.json").mkdir()
    (model / "LICENSE.txt").symlink_to(tmp_path / "gone")  # is read by nobody
    assert vllm.fingerprint(vllm.Config(model=str(model))) == whole


# --- chat templates


class Tokenizer:
    """As many of the library's methods as the backend calls."""

    all_special_tokens = ("<|end|>",)

    def __init__(self, template: Callable[[list[dict[str, str]]], str]) -> None:
        self._template = template

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return self._template(messages)

    def encode(self, text: str, **options: Any) -> list[int]:
        return [len(word) for word in text.split()]


def backend(template: Callable[[list[dict[str, str]]], str]) -> vllm.Backend:
    engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=64))
    llm: Any = SimpleNamespace(llm_engine=engine, get_tokenizer=lambda: Tokenizer(template))
    return vllm.Backend(llm, name="small@1", seats=2, chat_template=None)


@pytest.mark.parametrize("error", [ValueError("roles must alternate"), KeyError("role"), RuntimeError("no template")])
def test_a_conversation_that_the_chat_template_refuses_ends_its_row_and_not_the_run(error: Exception) -> None:
    def template(messages: list[dict[str, str]]) -> str:
        if messages[0]["role"] == "system":
            raise error
        return "".join(message["content"] for message in messages)

    model = backend(template)
    assert model.tokens((Message("user", "Kettles and pans"),)) == [7, 3, 4]
    asked = Request((Message("system", "Be kind."), Message("user", "Hm?")), Sampling(max_tokens=8), 1)
    with pytest.raises(PromptRefused, match="small@1: the chat template refuses the turns system, user: ") as caught:
        asyncio.run(Engine({"policy": model}).generate(asked))
    assert not caught.value.retryable
    assert not caught.value.ends_run
    assert str(error.args[0]) in str(caught.value)


def test_a_template_that_writes_the_day_gives_the_same_prompt_on_every_day() -> None:
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Words(models.WordLevel({"none": 0, "26": 1, "Jul": 2, "2024": 3}, unk_token="none"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = backend(lambda messages: "")
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    model._tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}"
    assert model.tokens((Message("user", "Hm?"),)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("tokenizer", "files", "changes", "chats"),
    [
        ({"chat_template": "{{ messages }}"}, (), {}, True),
        ({"bos_token": "<s>"}, (), {}, False),
        ({"bos_token": "<s>", "chat_template": None}, (), {}, False),
        ({"bos_token": "<s>"}, ("chat_template.jinja",), {}, True),
        ({"bos_token": "<s>"}, ("tekken.json",), {}, True),
        ({"bos_token": "<s>"}, (), {"chat_template": "mine.jinja"}, True),
        ({"bos_token": "<s>"}, (), {"engine": {"tokenizer": "other"}}, True),
        ({"bos_token": "<s>"}, (), {"trust_remote_code": True}, True),
        (None, (), {}, True),
    ],
)
def test_whether_a_model_has_a_chat_template_is_read_from_its_files(
    model: Path, tokenizer: dict[str, Any] | None, files: tuple[str, ...], changes: dict[str, Any], chats: bool
) -> None:
    if tokenizer is not None:
        (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    for name in files:
        (model / name).write_text("{}")
    assert vllm.chats(vllm.Config(model=str(model), **changes)) is chats


# --- answers


def test_an_answer_that_was_broken_off_is_asked_again_and_the_others_are_answered() -> None:
    model = backend(lambda messages: "")

    def ended(name: str, reason: str) -> SimpleNamespace:
        best = SimpleNamespace(text=f"answer {name}", finish_reason=reason, token_ids=[1, 2])
        return SimpleNamespace(
            request_id=name, finished=True, outputs=[best], prompt_token_ids=[1], num_cached_tokens=None
        )

    async def main() -> tuple[Any, ...]:
        model._waiting = {name: asyncio.get_running_loop().create_future() for name in ("1", "2", "3")}
        waiting = tuple(model._waiting.values())
        model._engine = SimpleNamespace(
            has_unfinished_requests=lambda: bool(model._waiting),
            step=lambda: [ended("1", "abort"), ended("2", "stop"), ended("3", "repetition")],
        )
        await model._step_while_busy()
        return tuple(await asyncio.gather(*waiting, return_exceptions=True))

    broken, whole, cut = asyncio.run(main())
    assert isinstance(broken, BackendError)
    assert broken.retryable
    assert (whole.text, whole.finish_reason) == ("answer 2", "stop")
    assert cut.finish_reason == "length"


def test_a_step_that_failed_is_no_fault_of_those_that_were_in_it() -> None:
    model = backend(lambda messages: "")

    def step() -> None:
        raise RuntimeError("out of memory")

    async def main() -> list[Any]:
        model._waiting = {name: asyncio.get_running_loop().create_future() for name in ("1", "2")}
        waiting = tuple(model._waiting.values())
        model._engine = SimpleNamespace(has_unfinished_requests=lambda: True, step=step)
        await model._step_while_busy()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    found = asyncio.run(main())
    assert [(str(error), error.retryable) for error in found] == [
        ("small@1: vLLM failed: out of memory (see the log above)", True)
    ] * 2
