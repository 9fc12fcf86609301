"""Rollouts by vLLM in this process, whose weights are replaced after each update: many times faster than `generate`.

The engine's own arithmetic (kernels, bfloat16) is not the trainer's, so the log-probabilities that it reports are
compared with the trainer's and never used in their place.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cai.errors import BackendError, InputError
from cai.training.rollouts import Drawing, Written
from cai.yamlfile import StrictModel

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Config(StrictModel):
    """Options of rollouts by vLLM."""

    dtype: str = Field("auto", description="Of the engine's weights, see the backend; float32 agrees best.")
    context: int = Field(4096, ge=16, description="Tokens of prompt and answer together.")
    seats: int = Field(0, ge=0, description="Sequences decoded at once; 0: 128 on the CPU, 256 on a GPU.")
    compile: Literal["yes", "no"] = Field("yes", description="Compile first: a minute, then a third faster.")
    kv_cache_gib: int = Field(2, ge=1, description="GiB of memory for the KV and prefix cache, CPU only.")
    gpu_memory_utilization: float = Field(0.4, gt=0, le=1, description="Share of the GPU; the trainer needs the rest.")
    engine: dict[str, Any] = Field(default_factory=dict, description="Further arguments for vllm.LLM, as they are.")


class Sampler:
    """See `cai.training.rollouts.Sampler`.

    Args:
        backend: `cai.backends.vllm`'s, for its engine.
    """

    def __init__(self, backend: Any) -> None:
        self._llm = backend._llm

    def sync(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Put the policy's weights into the live engine; what the prefix cache holds is of the old ones, and goes.

        Raises:
            BackendError: the engine did not take them.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            self._llm.reset_prefix_cache()
        except Exception as error:
            raise BackendError(f"vLLM did not take the new weights: {error}") from error

    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], drawing: Drawing) -> list[Written]:
        """As the protocol says; raises BackendError where vLLM fails."""
        from vllm import SamplingParams, TokensPrompt

        greedy = drawing.temperature == 0
        params = [
            SamplingParams(
                max_tokens=drawing.max_tokens,
                temperature=drawing.temperature,
                seed=None if greedy else seed,
                stop_token_ids=list(drawing.ends),
                logprobs=None if greedy else 0,
                detokenize=False,
            )
            for seed in seeds
        ]
        inputs = [TokensPrompt(prompt_token_ids=list(prompt)) for prompt in prompts]
        try:
            outputs = self._llm.generate(inputs, params, use_tqdm=False)
        except Exception as error:
            raise BackendError(f"vLLM failed: {error}") from error
        return [written(output.outputs[0], drawing.ends) for output in outputs]

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


def written(output: Any, ends: Sequence[int]) -> Written:
    """An answer from vLLM's output of one request."""
    tokens = tuple(output.token_ids)
    logprobs = None
    if output.logprobs is not None:
        logprobs = tuple(told[token].logprob for token, told in zip(tokens, output.logprobs, strict=True))
    return Written(tokens, finished=bool(tokens) and tokens[-1] in ends, logprobs=logprobs)


def build(config: Config, *, folder: Path, seed: int, processes: int, **_: Any) -> Sampler:
    """Load the model in `folder` into an engine of its own.

    Raises:
        InputError: there are several processes; each would start an engine for itself.
        MissingDependency, BackendError: vLLM is not installed, or cannot load the model.
    """
    if processes > 1:
        raise InputError(
            f"rollouts by vllm run in one process, and there are {processes}",
            mend="start it without accelerate launch, or set rollouts: transformers",
        )
    from cai.backends import vllm

    backend = vllm.build(
        vllm.Config(
            model=str(folder),
            dtype=config.dtype,
            context=config.context,
            seats=config.seats,
            compile=config.compile,
            kv_cache_gib=config.kv_cache_gib,
            gpu_memory_utilization=config.gpu_memory_utilization,
            # Log-probabilities at the temperature of sampling, as the trainer computes them.
            engine={"logprobs_mode": "processed_logprobs", **config.engine},
        ),
        seed=seed,
    )
    return Sampler(backend)
