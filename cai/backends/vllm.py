"""vLLM in this process: the fastest way to generate on one machine.

The engine is stepped from the event loop itself: between two steps every row whose answer has arrived asks its next
request, so new requests join the very next batch. (A thread for the steps was slower on few cores: it competes with
vLLM's own workers for the processor.)

Reproducibility: each request carries its own seed. On the same machine and versions, equal seeds give equal text as far
as the logits agree; those move in their last bits with the batch that a request shares, so a long sample may part from
an earlier one at a near-tie. What has been generated is in the request log and never drawn again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from cai import modelfolder
from cai.allocator import keep_freed_memory
from cai.backends import finish_reason, folded, folds
from cai.engine import Completion, Request, choice_logprob
from cai.errors import BackendError, ContextOverflow, InputError, MissingDependency, PromptRefused
from cai.processor import resolved_dtype
from cai.records import Message, Messages
from cai.store import readable
from cai.yamlfile import StrictModel

if TYPE_CHECKING:
    from vllm import LLM

log = logging.getLogger(__name__)

COMPILE_ABOVE = 150_000
"""Tokens to generate above which compiling (about a minute on 2 cores) pays for itself: it decodes a third faster."""

SCHEDULING = frozenset(
    "max_num_batched_tokens block_size max_num_seqs enable_chunked_prefill enable_prefix_caching enforce_eager "
    "async_scheduling scheduling_policy kv_cache_memory_bytes gpu_memory_utilization num_gpu_blocks_override "
    "tensor_parallel_size pipeline_parallel_size data_parallel_size distributed_executor_backend "
    "disable_custom_all_reduce disable_log_stats use_tqdm_on_load load_format compilation_config".split()
)
"""Arguments of vllm.LLM that say how it works and not what the model is; all others are part of its fingerprint."""


PATHS = ("model", "chat_template")
"""Options that name a file or folder: in a recipe, from the recipe's own folder on."""


class Config(StrictModel):
    """Options of the vLLM backend."""

    model: str = Field(description="Folder of the model (safetensors and tokenizer).")
    dtype: str = Field(
        "auto",
        description="Of the weights. auto: bfloat16, or float32 on a processor without units for bfloat16.",
    )
    context: int = Field(4096, ge=16, description="Tokens of prompt and answer together.")
    seats: int = Field(0, ge=0, description="Sequences decoded at once; 0: 128 on the CPU, 256 on a GPU.")
    compile: Literal["auto", "yes", "no"] = Field(
        "auto", description="Compile the model first. auto: always on a GPU, on the CPU for large jobs."
    )
    chat_template: str = Field("", description="Jinja file that replaces the model's own chat template.")
    template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Variables for the chat template, such as enable_thinking: false."
    )
    kv_cache_gib: int = Field(2, ge=1, description="GiB of memory for the KV and prefix cache, CPU only.")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    tensor_parallel: int = Field(1, ge=1, description="GPUs over which the model is split.")
    trust_remote_code: bool = Field(False, description="Run code that the model's folder brings. Off unless you ask.")
    engine: dict[str, Any] = Field(default_factory=dict, description="Further arguments for vllm.LLM, as they are.")

    @field_validator("chat_template")
    @classmethod
    def _names_a_file(cls, value: str) -> str:
        if "{{" in value or "{%" in value:
            raise ValueError("must be the name of a Jinja file, not the template itself")
        return value


def fingerprint(config: Config) -> str:
    """Identity of what answers: the folder's (`cai.modelfolder`), and what the configuration makes of it.

    Raises:
        InputError: no such folder, no model in it, or a file that cannot be read.
    """
    changed = {name: value for name, value in config.engine.items() if name not in SCHEDULING}
    if config.template_kwargs:
        changed["template_kwargs"] = config.template_kwargs
    return modelfolder.fingerprint(
        Path(config.model),
        dtype=config.dtype,
        chat_template=_template(config),
        changed=changed,
        # vLLM takes the older files only where there is no other, or where it is told to.
        older=config.engine.get("load_format") in ("pt", "npcache"),
        code=config.trust_remote_code,
    )


def _template(config: Config) -> str | None:
    """The chat template that the configuration names."""
    if not config.chat_template:
        return None
    path = Path(config.chat_template)
    with readable(path, mend="check `chat_template`"):
        return path.read_text("utf-8")


def chats(config: Config) -> bool:
    """Whether the model has a chat template, as far as can be told without loading it; see `cai.modelfolder.chats`."""
    elsewhere = not {"tokenizer", "tokenizer_mode"}.isdisjoint(config.engine)
    if config.chat_template or config.trust_remote_code or elsewhere:
        return True
    return modelfolder.chats(Path(config.model))


def expected_speed(config: Config) -> float | None:
    """Tokens generated per second, by rule of thumb: decoding reads the weights, so speed falls with their size.

    Fitted to 450 tok/s for 0.27 GB on 2 cores, and to 10,000 tok/s for 16 GB on one data-centre GPU; good to a factor
    of three. Asks for no driver and loads nothing.
    """
    size = modelfolder.weight_bytes(Path(config.model))
    if not size:
        return None
    if shutil.which("nvidia-smi"):
        return 1.6e14 * config.tensor_parallel / size
    return 6e10 * len(os.sched_getaffinity(0)) / size


_REPLY = "reply"
"""What a chat template is shown in place of a reply begun for the model."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a chat template takes turns: with the system's text before the user's, with contents as lists of parts."""

    folded: bool
    parts: bool


class Backend:
    """See `cai.engine.Backend`. Loading takes 10 s (eager) to a minute (compiled) on a CPU."""

    def __init__(
        self,
        llm: LLM,
        *,
        name: str,
        seats: int,
        chat_template: str | None,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.fingerprint = name
        self.seats = seats
        self._llm = llm
        self._engine = llm.llm_engine
        self._tokenizer = llm.get_tokenizer()
        self._template = {"chat_template": chat_template, **(template_kwargs or {})}
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        # Those with a name, and those that only the vocabulary knows (<|start_header_id|>); the longest first.
        added = getattr(self._tokenizer, "added_tokens_decoder", {}).values()
        control = {*self._tokenizer.all_special_tokens, *(str(token) for token in added if token.special)}
        patterns = [re.escape(token) for token in sorted(control, key=len, reverse=True)]
        self._control = re.compile("|".join(patterns) or r"(?!)")
        self.context: int = self._engine.model_config.max_model_len
        self._waiting: dict[str, asyncio.Future[Completion]] = {}
        self._asked: dict[str, tuple[str, ...]] = {}
        self._choices: dict[tuple[str, ...], list[list[int]]] = {}
        self._count = 0
        self._pump: asyncio.Task[None] | None = None

    def tokens(self, prompt: Any) -> list[int]:
        """Token ids of a request's prompt, chat template applied.

        Raises:
            PromptRefused: the template does not take such a conversation (no two turns of the user, say), or there is
                none.
        """
        if isinstance(prompt, str):
            return list(self._tokenizer.encode(prompt))
        turns = tuple(Message(turn.role, self._plain(turn.content)) for turn in prompt)
        return self._encode(self._written(turns, self._shape(turns)))

    def _shape(self, turns: Messages) -> _Shape:
        """How the chat template wants such turns, tried on words that must stand in what it writes.

        Some templates refuse a system turn, or leave it out: its text then stands before the user's. Some, of models
        that see pictures, write nothing of a content that is not a list of parts.

        Raises:
            PromptRefused: it takes them in no way.
        """
        roles = tuple(turn.role for turn in turns)
        if roles in self._shapes:
            return self._shapes[roles]
        words = tuple(Message(role, f"turn-{number}.") for number, role in enumerate(roles))
        refused: PromptRefused | None = None
        for fold in (False, True) if folds(turns) else (False,):
            for parts in (False, True):
                shape = _Shape(fold, parts)
                try:
                    written = self._written(words, shape)
                except PromptRefused as error:
                    refused = refused if parts else error
                    continue
                if all(word.content in written for word in words):
                    self._shapes[roles] = shape
                    return shape
        raise refused or self._refused(roles, "it leaves out what they say")

    def _written(self, turns: Messages, shape: _Shape) -> str:
        """The text that the chat template makes of the turns.

        A last turn of the assistant is a reply begun for the model. It stays open, as it is, where the template puts
        what an assistant says: behind what only opens an answer (`<think>`, a header without a channel) it would be
        part of that.

        Raises:
            PromptRefused: the template fails.
        """
        roles = tuple(turn.role for turn in turns)
        begun = turns[-1].content if roles[-1] == "assistant" else None
        if begun is not None:  # templates trim and cut what is said
            turns = (*turns[:-1], Message("assistant", _REPLY))
        if shape.folded:
            turns = folded(turns)
        try:
            text: str = self._tokenizer.apply_chat_template(
                [
                    {
                        "role": turn.role,
                        "content": [{"type": "text", "text": turn.content}] if shape.parts else turn.content,
                    }
                    for turn in turns
                ],
                tokenize=False,
                add_generation_prompt=begun is None,
                continue_final_message=begun is not None,
                strftime_now=modelfolder.strftime_now,
                **self._template,
            )
        except Exception as error:  # a template is a program of the model's, which may fail in any way
            raise self._refused(roles, " ".join(str(error).split())[:300]) from error
        return text if begun is None else text.removesuffix(_REPLY) + begun

    def _refused(self, roles: Sequence[str], why: str) -> PromptRefused:
        return PromptRefused(
            f"the chat template refuses the turns {', '.join(roles)}: {why}",
            where=self.fingerprint,
            mend="leave such conversations out, or give the model another `chat_template`",
        )

    def _plain(self, text: str) -> str:
        """`text` with the control tokens broken up: nobody's words may end a turn and begin a forged one."""
        return self._control.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def choice_tokens(self, choices: tuple[str, ...]) -> list[list[int]]:
        """Ids of the tokens that spell each choice, with and without a blank before it.

        Raises:
            InputError: this tokenizer has no single token for one of them.
        """
        if choices not in self._choices:
            found = [sorted(self._spelled(choice)) for choice in choices]
            for choice, ids in zip(choices, found, strict=True):
                if not ids:
                    raise InputError(f"the choice {choice!r} is more than one token", where=self.fingerprint)
            self._choices[choices] = found
        return self._choices[choices]

    def _spelled(self, choice: str) -> set[int]:
        """Ids of the tokens that spell a choice, at the beginning of a text and within one.

        Many tokenizers (SentencePiece) put a blank before every text, so that what they make of a choice by itself is
        not what stands behind a bracket: of Mistral's, "7" alone is two tokens, and "A" alone another one.
        """
        found = set()
        for before in ("", "\n"):  # no token spells a line break and a letter
            known = self._encode(before)
            for text in (choice, f" {choice}"):
                ids = self._encode(before + text)
                if len(ids) == len(known) + 1 and ids[:-1] == known:
                    found.add(ids[-1])
        return found

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    async def generate(self, request: Request) -> Completion:
        ids = self.tokens(request.prompt)
        if len(ids) + request.sampling.max_tokens > self.context:
            raise ContextOverflow(
                f"{len(ids)} prompt tokens and {request.sampling.max_tokens} new ones do not fit in {self.context}",
                where=self.fingerprint,
            )
        from vllm import SamplingParams, TokensPrompt
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind

        if request.choices:
            wanted = [token for variants in self.choice_tokens(request.choices) for token in variants]
            params = SamplingParams(
                max_tokens=1, temperature=0.0, logprob_token_ids=wanted, output_kind=RequestOutputKind.FINAL_ONLY
            )
        else:
            params = SamplingParams(
                max_tokens=request.sampling.max_tokens,
                temperature=request.sampling.temperature,
                top_p=request.sampling.top_p,
                top_k=request.sampling.top_k,
                stop=list(request.sampling.stop) or None,
                seed=request.seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        self._count += 1
        name = str(self._count)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        # vLLM gives the request a name of its own; that is the one it can be aborted by.
        try:
            inner = self._engine.add_request(name, TokensPrompt(prompt_token_ids=ids), params)
        except (ValueError, VLLMValidationError) as error:  # of this request alone: an empty prompt, say
            raise PromptRefused(f"vLLM refuses the request: {error}", where=self.fingerprint) from error
        self._waiting[name] = future
        if request.choices:
            self._asked[name] = request.choices
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._step_while_busy())
        try:
            return await future
        finally:
            self._asked.pop(name, None)
            if self._waiting.pop(name, None) is not None and not future.done():
                with contextlib.suppress(Exception):
                    self._engine.abort_request([inner], internal=True)

    async def _step_while_busy(self) -> None:
        try:
            while self._engine.has_unfinished_requests():
                for output in self._engine.step():
                    future = self._waiting.get(output.request_id)
                    if not output.finished or future is None or future.done():
                        continue
                    best = output.outputs[0]
                    try:
                        completion = Completion(
                            text=best.text,
                            finish_reason=finish_reason(best.finish_reason, where=self.fingerprint),
                            prompt_tokens=len(output.prompt_token_ids or ()),
                            completion_tokens=len(best.token_ids),
                            cached_tokens=output.num_cached_tokens or 0,
                            model=self.fingerprint,
                            choice_logprobs=self._choice_logprobs(output.request_id, best),
                        )
                    except BackendError as error:  # of this request alone
                        future.set_exception(error)
                    else:
                        future.set_result(completion)
                    self._waiting.pop(output.request_id, None)
                # Once round the loop wakes the rows just answered, which ask their next request before the next step.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        except Exception as error:
            # A step fails for all that were in it, whoever is to blame; one that is dead answers nothing from here on.
            broken = BackendError(
                f"vLLM failed: {error}", where=self.fingerprint, mend="see the log above", retryable=True
            )
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(broken)
            self._waiting.clear()

    def _choice_logprobs(self, name: str, output: Any) -> tuple[float, ...]:
        choices = self._asked.get(name)
        if choices is None:
            return ()
        found = output.logprobs[0]
        return tuple(
            choice_logprob(found[token].logprob for token in variants if token in found)
            for variants in self.choice_tokens(choices)
        )

    async def close(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._llm.llm_engine.engine_core.shutdown()


def has_gpu() -> bool:
    """Whether vLLM will run on a GPU here."""
    import torch

    return bool(torch.cuda.is_available())


def build(config: Config, *, seed: int, expected_tokens: int = 0) -> Backend:
    """Load the model.

    Args:
        seed: of vLLM itself; each request brings its own beside it.
        expected_tokens: about how many will be generated; decides whether compiling pays.

    Raises:
        MissingDependency: vLLM is not installed.
        InputError: no model in the folder.
        BackendError: vLLM cannot load it.
    """
    name = fingerprint(config)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # vLLM and torch warn a screenful on the CPU; set VLLM_LOGGING_LEVEL to see it.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    # GNU OpenMP lets waiting threads spin for milliseconds, which on few cores takes the processor from the very thread
    # they wait for as soon as anything else runs beside us (measured: half the speed). Spin briefly, then sleep.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # One process: a step is a function call, and requests need not be copied to another process.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about torch's own deprecations, inside vLLM
            logging.getLogger("torch._library").setLevel(logging.ERROR)
            from vllm import LLM
    except ImportError as error:
        raise MissingDependency(
            f"vLLM cannot be imported: {error}",
            extra="gpu",
            mend="with an NVIDIA GPU; else see 'Without a GPU' in the README",
        ) from error
    gpu = has_gpu()
    seats = config.seats or (256 if gpu else 128)
    eager = config.compile == "no" or (config.compile == "auto" and not gpu and expected_tokens < COMPILE_ABOVE)
    arguments: dict[str, Any] = {
        "model": config.model,
        "dtype": resolved_dtype(config.dtype),
        "max_model_len": config.context,
        "max_num_seqs": seats,
        "enforce_eager": eager,
        "enable_prefix_caching": True,
        "trust_remote_code": config.trust_remote_code,
        "tensor_parallel_size": config.tensor_parallel,
        "seed": seed,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if gpu:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    else:
        keep_freed_memory()
        # As an argument: the variable VLLM_CPU_KVCACHE_SPACE, which wins where a user sets it, is of the whole process.
        arguments["kv_cache_memory_bytes"] = config.kv_cache_gib << 30
        # vLLM rewinds a request's random generator after a partial prefill, which torch's CPU generator cannot do
        # ("CPU Generator does not use offset"): so a seeded request must be prefilled whole.
        arguments |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(config.context, 4096)}
        # Only whole blocks are found in the prefix cache, and vLLM's 128 tokens on the CPU are longer than most turns:
        # with the shortest that it takes there, a critique and its revision share more (measured: a tenth faster).
        arguments["block_size"] = 32
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            llm = LLM(**(arguments | config.engine))
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise BackendError(f"vLLM cannot load the model: {reason}", where=config.model) from error
    return Backend(llm, name=name, seats=seats, chat_template=_template(config), template_kwargs=config.template_kwargs)
