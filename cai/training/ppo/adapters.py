"""Low-rank adapters of PPO's models: several on one base, one of them active at a time, or none.

peft finds the layers, names the weights and draws them; the arithmetic of a layer is ours.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import Tensor, nn

from cai.training.ppo.config import Lora


class AdaptedLinear(Linear):  # type: ignore[misc]
    """A linear layer with adapters (Hu et al. 2021, arXiv 2106.09685, eq. 3), for inputs x of (..., features):

        y = x W^T + b + s (x A^T) B^T

    The same numbers as peft's own layer, which makes the second term whole, scales it, and adds it: three more passes
    over tensors of the output's size. Here it is added as it is multiplied, and s goes onto the few numbers between A
    and B. (The class's name has `Linear` in it because that is how peft knows layers that have adapters already.)
    """

    def forward(self, x: Tensor, *args: Any, **more: Any) -> Tensor:
        base: Tensor = self.base_layer(x)
        if self._disable_adapters:
            return base
        (name,) = self.active_adapters
        down, up = self.lora_A[name], self.lora_B[name].weight
        between = (down(x.to(down.weight.dtype)) * self.scaling[name]).to(base.dtype)
        flat = torch.addmm(base.flatten(0, -2), between.flatten(0, -2), up.to(base.dtype).t())
        return flat.view_as(base)


def put(model: nn.Module, lora: Lora, names: Sequence[str]) -> None:
    """Adapters of these names into `model`; their weights are all that is trained of it."""
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    for name in names:
        # task_type keeps `all-linear` off the output layer.
        config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, task_type="CAUSAL_LM")
        config._register_custom_module({nn.Linear: AdaptedLinear})
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # two adapters are meant
            inject_adapter_in_model(config, model, adapter_name=name)
    for parameter_name, parameter in model.named_parameters():
        trained = any(f".{name}." in parameter_name for name in names) and ".lora_" in parameter_name
        parameter.requires_grad_(trained)
        if trained:  # as peft's own get_peft_model: small steps are lost in bfloat16
            parameter.data = parameter.data.float()


@contextlib.contextmanager
def active(model: nn.Module, adapter: str | None) -> Iterator[None]:
    """`model` with this adapter, or the base alone. peft's own switch would also freeze the other adapters."""
    layers: list[Any] = [layer for layer in model.modules() if hasattr(layer, "_active_adapter")]
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._disable_adapters = adapter is None
        if adapter is not None:
            layer._active_adapter = [adapter]
    try:
        yield
    finally:
        for layer, (name, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = name, disabled
