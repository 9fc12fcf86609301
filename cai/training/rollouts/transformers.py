"""Rollouts by Hugging Face's `generate`, with the trained model itself: works everywhere, no second copy of the
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from cai.training.rollouts import Drawing, Written
from cai.yamlfile import StrictModel

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class Config(StrictModel):
    """Options of rollouts by transformers."""

    batch: int = Field(64, ge=1, description="Answers decoded at once.")


class Gumbel:
    """A logits processor that turns greedy decoding into sampling, each row with its own stream of random numbers.

    argmax_v(x_v / T + g_v), with g_v = -log(-log u_v), u uniform, is a draw from softmax(x / T) (Gumbel 1954; Maddison
    et al. 2014, arXiv 1411.0030). A row's draws so depend on its seed alone: not on its batch, nor on the number of
    processes.
    """

    def __init__(self, seeds: Sequence[int], temperature: float) -> None:
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._temperature == 0:
            return scores
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self._streams])
        noise = noise.clamp(min=1e-30).log_().neg_()  # -log of an exponential variate is a Gumbel variate
        return scores.float() / self._temperature + noise.to(scores.device)


class Sampler:
    """See `cai.training.rollouts.Sampler`.

    Args:
        model: a causal language model, which is also the one that is trained.
        active: entered while it writes: makes the policy's adapter the active one.
    """

    def __init__(
        self, model: Any, *, batch: int, active: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> None:
        self._model = model
        self._batch = batch
        self._active = active

    def sync(self, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Nothing to do: it is the same model."""

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def write(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], drawing: Drawing) -> list[Written]:
        order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))  # alike lengths: little padding
        found: dict[int, Written] = {}
        with self._active(), _blank_generation_config(self._model):
            for begin in range(0, len(order), self._batch):
                rows = order[begin : begin + self._batch]
                answers = self._some([prompts[row] for row in rows], [seeds[row] for row in rows], drawing)
                found.update(zip(rows, answers, strict=True))
        return [found[row] for row in range(len(prompts))]

    def _some(self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], drawing: Drawing) -> list[Written]:
        from transformers import GenerationConfig, LogitsProcessorList

        device = self._model.device
        width = max(len(prompt) for prompt in prompts)
        ids = torch.full((len(prompts), width), drawing.pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        config = GenerationConfig(
            max_new_tokens=drawing.max_tokens,
            do_sample=False,
            eos_token_id=list(drawing.ends),
            pad_token_id=drawing.pad,
            use_cache=True,
        )
        full = self._model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=LogitsProcessorList([Gumbel(seeds, drawing.temperature)]),
        )
        return [cut(row, drawing.ends) for row in full[:, width:].tolist()]

    def close(self) -> None:
        return None


@contextmanager
def _blank_generation_config(model: Any) -> Iterator[None]:
    """While entered, nothing of the checkpoint's own (top_p, repetition_penalty, ...) bends the distribution.

    peft's `generate` puts the wrapper's config into the model inside, so that one's is put back as well.
    """
    from transformers import GenerationConfig

    kept = [(part, part.generation_config) for part in model.modules() if "generation_config" in vars(part)]
    own = "generation_config" in vars(model)
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        if not own:
            del model.generation_config
        for part, config in kept:
            part.generation_config = config


def cut(tokens: Sequence[int], ends: Sequence[int]) -> Written:
    """The tokens up to the first that ends the answer, it included."""
    for place, token in enumerate(tokens):
        if token in ends:
            return Written(tuple(tokens[: place + 1]), finished=True)
    return Written(tuple(tokens), finished=False)


def build(
    config: Config, *, model: Any, folder: Path, seed: int, active: Callable[[], AbstractContextManager[Any]], **_: Any
) -> Sampler:
    """A sampler over the live `model`; `folder` and `seed` are for samplers that load their own."""
    return Sampler(model, batch=config.batch, active=active)
