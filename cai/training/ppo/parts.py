"""The models of PPO: policy, reference and value function, over one base in memory where there are adapters.

With LoRA (Hu et al. 2021, arXiv 2106.09685) there is one base model. The policy is the base with the adapter `policy`,
the reference is the base alone, the value function is the base with the adapter `value` and a head of one number.
Without, the three are copies. A `shared` value function is a head on the policy's own last layer, as in Ziegler et al.
2019.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai.training.models import widened
from cai.training.ppo import adapters
from cai.training.ppo.config import Lora
from cai.training.ppo.losses import entropy, token_logprobs

POLICY, VALUE = "policy", "value"


@dataclass(frozen=True)
class Rows:
    """Prompts with their answers, as the models read them: one behind the other, padded on the right.

    Right padding needs no attention mask in a causal model: no token sees what stands behind it, so a row's figures
    cannot depend on its neighbours.

    Attributes:
        ids: (rows, width).
        row, place: for each answer token, its row and the position that predicts it (the one before); flat, in order.
        tokens: the answer tokens, flat.
        lengths: of the answers.
    """

    ids: Tensor
    row: Tensor
    place: Tensor
    tokens: Tensor
    lengths: tuple[int, ...]

    @classmethod
    def make(cls, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], pad: int, device: Any) -> Rows:
        """Rows on `device`; no prompt and no answer may be empty."""
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.full((len(prompts), width), pad)
        row: list[int] = []
        place: list[int] = []
        tokens: list[int] = []
        for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids[index, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            row += [index] * len(answer)
            place += range(len(prompt) - 1, len(prompt) + len(answer) - 1)
            tokens += answer
        lengths = tuple(len(answer) for answer in answers)
        rows, places, answered = (torch.tensor(values, device=device) for values in (row, place, tokens))
        return cls(ids.to(device), rows, places, answered, lengths)

    def table(self, flat: Tensor, width: int) -> Tensor:
        """Flat figures of answer tokens as (rows, width), 0 behind each answer's end."""
        parts = flat.split(self.lengths)
        return torch.stack([nn.functional.pad(part, (0, width - len(part))) for part in parts])


@dataclass(frozen=True)
class Read:
    """What the models say of the answer tokens, flat: log-probability and entropy under the policy, value before
    each.
    """

    logprobs: Tensor
    entropy: Tensor
    values: Tensor


class Parts(nn.Module):  # type: ignore[misc]
    """All models of PPO as one module, so that DistributedDataParallel sees one forward pass.

    Args:
        model: the causal language model; with `lora`, adapters are put into it.
        shared: whether the value head sits on the policy's last layer.
        temperature: of sampling: the policy is softmax(logits / temperature).
        checkpointing: compute activations again for the backward pass instead of keeping them.
    """

    def __init__(
        self, model: nn.Module, *, lora: Lora | None, shared: bool, temperature: float, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.shared = shared
        self.lora = lora is not None
        self.model: Any = model
        self.copies = nn.ModuleDict()
        model.requires_grad_(False)
        if lora is not None:
            adapters.put(model, lora, [POLICY] if shared else [POLICY, VALUE])
        else:
            self.copies["reference"] = copy.deepcopy(model)
            model.requires_grad_(True)
            if not shared:
                self.copies[VALUE] = copy.deepcopy(self.model.base_model)
                self.copies[VALUE].requires_grad_(True)
        self.entropy_trained = True  # whether gradients flow through it; without, it costs half
        self._now: str | None = None
        self._recomputing: list[Any] = self._checkpoint() if checkpointing else []
        weight = self.model.get_input_embeddings().weight
        # From 0: the first advantages are the rewards themselves, and no random head disturbs the policy.
        self.head = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.eval()  # dropout would make the first ratio differ from 1

    def forward(self, rows: Rows) -> Read:
        """Figures of policy and value function for every answer token, with gradients."""
        # transformers checkpoints a layer that is in training mode; the rest stays out of it, for want of dropout.
        for layer in self._recomputing:
            layer.training = torch.is_grad_enabled()
        try:
            return self._read(rows)
        finally:
            for layer in self._recomputing:
                layer.training = False

    def _read(self, rows: Rows) -> Read:
        with self._active(POLICY):
            logits, hidden = answer_logits(self.model, rows)
        logits = self._warmed(logits)
        if not self.shared:
            with self._active(VALUE):
                trunk = self.model.base_model if self.lora else self.copies[VALUE]
                states = trunk(input_ids=rows.ids, use_cache=False).last_hidden_state
            hidden = states[rows.row, rows.place]
        with torch.autocast(hidden.device.type, enabled=False):  # one number a token: no place to save bits
            values = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.entropy_trained):
            spread = entropy(logits)
        return Read(token_logprobs(logits, rows.tokens), spread, values)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def reference(self, rows: Rows) -> Tensor:
        """Log-probabilities of the answer tokens under the reference, flat."""
        with self._active(None):
            logits, _ = answer_logits(self.model if self.lora else self.copies["reference"], rows)
        return token_logprobs(self._warmed(logits), rows.tokens)

    def _warmed(self, logits: Tensor) -> Tensor:
        return logits if self.temperature == 1 else logits / self.temperature  # they are large, and 1 is usual

    @contextlib.contextmanager
    def _active(self, adapter: str | None) -> Iterator[None]:
        """The base with this adapter, or alone."""
        outer, self._now = self._now, adapter
        try:
            with adapters.active(self.model, adapter) if self.lora else contextlib.nullcontext():
                yield
        finally:
            self._now = outer

    def _checkpoint(self) -> list[Any]:
        from transformers.modeling_layers import GradientCheckpointingLayer

        def contexts() -> tuple[Any, Any]:
            # By the time of the backward pass another adapter is active than the one this layer was computed with.
            return contextlib.nullcontext(), self._active(self._now)

        models = [self.model, *(copy for name, copy in self.copies.items() if name == VALUE)]
        for model in models:
            model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
        return [layer for model in models for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The model as the policy, for a sampler."""
        with self._active(POLICY):
            yield

    @contextlib.contextmanager
    def at(self, temperature: float) -> Iterator[None]:
        """While entered, policy and reference are read at another temperature; at 0 as they are."""
        kept, self.temperature = self.temperature, temperature or 1.0
        try:
            yield
        finally:
            self.temperature = kept

    def groups(self) -> tuple[list[tuple[str, nn.Parameter]], list[tuple[str, nn.Parameter]]]:
        """What is trained, by name: of the policy, and of the value function alone."""
        trained = [(name, parameter) for name, parameter in self.named_parameters() if parameter.requires_grad]
        value = [pair for pair in trained if _of_value(pair[0])]
        return [pair for pair in trained if not _of_value(pair[0])], value

    def trained_state(self) -> dict[str, Tensor]:
        """Copies of the trained tensors, by name, on the CPU."""
        return {name: p.detach().to("cpu", copy=True) for group in self.groups() for name, p in group}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load_trained(self, tensors: dict[str, Tensor]) -> None:
        """What `trained_state` gave back.

        Raises:
            KeyError: another set of tensors.
        """
        own = {name: p for group in self.groups() for name, p in group}
        if set(own) != set(tensors):
            raise KeyError(f"{len(set(own) ^ set(tensors))} tensors differ")
        for name, parameter in own.items():
            parameter.copy_(tensors[name])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def policy_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The policy's weights one by one, adapters merged, by the names of the checkpoint without adapters.

        Merged ones are float32. An engine that holds bfloat16 rounds them, so what it writes with is the policy only
        nearly: of what it has learnt below a weight's last bit nothing.
        """
        layers = {name: layer for name, layer in self.model.named_modules() if hasattr(layer, "get_delta_weight")}
        tied = self.model.config.tie_word_embeddings
        for name, tensor in self.model.state_dict().items():
            if ".lora_" in name or (tied and name == "lm_head.weight"):
                continue
            owner = name.removesuffix(".base_layer.weight")
            if owner != name and owner in layers:
                tensor = tensor.float() + layers[owner].get_delta_weight(POLICY).float()
            yield name.replace(".base_layer.", "."), tensor

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def merged(self) -> Any:
        """The policy as a plain model, adapters merged into it in float32; the end of these parts."""
        if self.lora:
            widened(self.model)
        for name, layer in [pair for pair in self.model.named_modules() if hasattr(pair[1], "get_delta_weight")]:
            base = layer.get_base_layer()
            base.weight += layer.get_delta_weight(POLICY)
            owner, _, child = name.rpartition(".")
            setattr(self.model.get_submodule(owner), child, base)
        if hasattr(self.model, "peft_config"):
            del self.model.peft_config
        if self._recomputing:
            self.model.gradient_checkpointing_disable()
        return self.model


def _of_value(name: str) -> bool:
    return name.startswith(("head.", f"copies.{VALUE}.")) or f".{VALUE}." in name


def answer_logits(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """Logits of the positions that predict an answer token, (tokens, vocabulary), and the states they were read from.

    The output layer is given those positions only: for a small model with a large vocabulary it is a third of the work.
    Whatever the architecture does with its logits (scaling, soft caps) still happens behind it.
    """
    kept: list[Tensor] = []

    def choose(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        kept.append(arguments[0][rows.row, rows.place])
        return (kept[0].unsqueeze(0),)

    hook = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        logits = model(input_ids=rows.ids, use_cache=False).logits
    finally:
        hook.remove()
    return logits.squeeze(0), kept[0]
