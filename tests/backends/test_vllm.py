"""What the vLLM backend decides before vLLM is loaded; the rest is in tests/real."""

from __future__ import annotations

import asyncio
import importlib.util
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
        if len(messages) > 1:
            raise error
        return "".join(message["content"] for message in messages)

    model = backend(template)
    assert model.tokens((Message("user", "Kettles and pans"),)) == [7, 3, 4]
    asked = Request((Message("user", "Be kind."), Message("user", "Hm?")), Sampling(max_tokens=8), 1)
    with pytest.raises(PromptRefused, match="small@1: the chat template refuses the turns user, user: ") as caught:
        asyncio.run(Engine({"policy": model}).generate(asked))
    assert not caught.value.retryable
    assert not caught.value.ends_run
    assert str(error.args[0]) in str(caught.value)


def test_a_template_that_leaves_out_what_is_said_is_refused() -> None:
    model = backend(lambda messages: str(messages[0]["content"]))
    assert model.tokens((Message("user", "Kettles and pans"),)) == [7, 3, 4]
    with pytest.raises(PromptRefused, match="refuses the turns user, assistant, user: it leaves out what they say"):
        model.tokens((Message("user", "Hm?"), Message("assistant", "Hm."), Message("user", "Which?")))


CHAT_TEMPLATES = sorted(
    path
    for path in Path(importlib.util.find_spec("trl").origin or "").parent.glob("chat_templates/*.jinja")  # type: ignore[union-attr]
    if "training" not in path.stem
)


class Written:
    """A real tokenizer's chat template; a token is a character."""

    all_special_tokens = ()

    def __init__(self, template: str) -> None:
        from tokenizers import Tokenizer as Words
        from tokenizers import models
        from transformers import PreTrainedTokenizerFast

        words = Words(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
        self._template = template

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        return str(self._tokenizer.apply_chat_template(messages, **options | {"chat_template": self._template}))

    def encode(self, text: str, **options: Any) -> list[int]:
        return [ord(character) for character in text]


def written(template: Path | str, *turns: Message, **variables: Any) -> str:
    """What a chat template makes of the turns."""
    model = backend(lambda messages: "")
    model._tokenizer = Written(template if isinstance(template, str) else template.read_text("utf-8"))
    model._template |= variables
    return "".join(map(chr, model.tokens(turns)))


@pytest.mark.parametrize("template", CHAT_TEMPLATES, ids=lambda path: path.stem)
def test_a_reply_begun_stands_in_no_thought_and_all_that_was_said_before_it(template: Path) -> None:
    asked = (Message("system", "Weigh both."), Message("user", "Which is better?"))
    text = written(template, *asked, Message("assistant", "The better answer is "))
    assert text.endswith("The better answer is ")
    assert "Weigh both." in text
    assert "Which is better?" in text
    assert text.rfind("<think>") <= text.rfind("</think>")
    said = written(template, *asked, Message("assistant", "Answer B"), Message("user", "Are you sure?"))
    assert all(words in said for words in ("Weigh both.", "Which is better?", "Answer B", "Are you sure?"))


def test_a_reply_begun_stands_where_an_answer_does() -> None:
    asked = (Message("user", "Which?"), Message("assistant", "It is"))
    ends = {path.stem: written(path, *asked) for path in CHAT_TEMPLATES}
    assert ends["gptoss"].endswith("<|start|>assistant<|channel|>final<|message|>It is")
    assert ends["muse_glimmer"].endswith("<|start|>assistant to=user<|message|>It is")
    assert ends["qwen3_6"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\nIt is")
    assert ends["qwen2_5"].endswith("<|im_start|>assistant\nIt is")


def test_what_the_system_says_stands_before_the_user_where_a_template_has_no_such_turn() -> None:
    (gemma,) = (path for path in CHAT_TEMPLATES if path.stem == "gemma")
    turns = (Message("system", "Be kind."), Message("user", "Hm?"))
    assert "<start_of_turn>user\nBe kind.\n\nHm?<end_of_turn>" in written(gemma, *turns)
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}|{% endfor %}"
    assert written(silent, *turns) == "Be kind.\n\nHm?|"


def test_a_recipe_can_give_the_chat_template_its_variables(model: Path) -> None:
    (qwen,) = (path for path in CHAT_TEMPLATES if path.stem == "qwen3_6")
    turns = (Message("user", "Hm?"),)
    assert written(qwen, *turns).endswith("<think>\n")
    assert written(qwen, *turns, enable_thinking=False).endswith("<think>\n\n</think>\n\n")
    configs = [
        vllm.Config(model=str(model), template_kwargs=variables) for variables in ({}, {"enable_thinking": False})
    ]
    plain, without = (vllm.fingerprint(config) for config in configs)
    assert plain == vllm.fingerprint(vllm.Config(model=str(model))) != without


def test_a_template_that_writes_the_day_gives_the_same_prompt_on_every_day() -> None:
    from tokenizers import Tokenizer as Words
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Words(models.WordLevel({"none": 0, "26": 1, "Jul": 2, "2024": 3}, unk_token="none"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = backend(lambda messages: "")
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    model._tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}"
    assert model.tokens((Message("user", "none"),)) == [1, 2, 3, 0]


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


# --- choices


def test_a_choice_is_found_where_a_tokenizer_puts_a_blank_before_every_text() -> None:
    from tokenizers import Tokenizer as Pieces
    from tokenizers import models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(("▁", "A", "7", "1", "0", "[", "\n", "▁A"))}
    pieces = Pieces(models.BPE(vocabulary, [("▁", "A")]))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    model = backend(lambda messages: "")
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces)
    assert model._tokenizer.tokenize("7") == ["▁", "7"]  # by itself; behind "Rating: [" it is one token
    assert model._tokenizer.tokenize("[7") == ["▁", "[", "7"]
    assert model.choice_tokens(("A", "7")) == [[vocabulary["A"], vocabulary["▁A"]], [vocabulary["7"]]]
    with pytest.raises(InputError, match="small@1: the choice '10' is more than one token"):
        model.choice_tokens(("7", "10"))


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
