"""PPO's models: what is read of a row, whatever stands beside it; adapters; how rows are cut into passes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")
from cai.training.ppo import adapters  # noqa: E402
from cai.training.ppo.buffer import Sample  # noqa: E402
from cai.training.ppo.config import Lora  # noqa: E402
from cai.training.ppo.parts import Parts, Rows, answer_logits  # noqa: E402
from cai.training.ppo.rollout import LAUNCH_TOKENS, PASS_TOKENS, passes  # noqa: E402
from tests.training import tiny_rl  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
]


def parts_of(model: Path, *, lora: bool = True, shared: bool = False, checkpointing: bool = False) -> Parts:
    loaded, _ = tiny_rl.load(model)
    options = Lora(rank=4, alpha=8) if lora else None
    return Parts(loaded, lora=options, shared=shared, temperature=1.0, checkpointing=checkpointing)


ROWS = ((2, 3, 4, 5), (6, 7)), ((8, 9), (10, 11, 12)), ((4, 5, 6, 7, 8, 9, 10), (11,))


def rows(which: Sequence[int] = (0, 1, 2)) -> Rows:
    return Rows.make([ROWS[i][0] for i in which], [ROWS[i][1] for i in which], 0, "cpu")


@pytest.mark.parametrize(("device", "fixed"), [("cpu", PASS_TOKENS), ("cuda", LAUNCH_TOKENS)])
def test_no_cut_into_passes_computes_less(device: str, fixed: int) -> None:
    assert passes([], [], 4, device) == []  # a process without a row
    draw = random.Random(0)
    for _ in range(40):
        lengths = [draw.choice((3, 40, 41, 200, 700)) for _ in range(draw.randint(1, 9))]
        samples = [Sample((1,) * (n - 1), (2,), "", True, 0.0) for n in lengths]
        own = draw.sample(range(len(lengths)), draw.randint(1, len(lengths)))
        most = draw.randint(1, 5)
        cut = passes(own, samples, most, device)
        assert sorted(i for some in cut for i in some) == sorted(own)
        assert all(1 <= len(some) <= most for some in cut)

        def cost(cut: Any, lengths: Any = lengths) -> int:
            return sum(fixed + len(some) * max(lengths[i] for i in some) for some in cut)

        order = sorted(own, key=lambda i: lengths[i])
        every = itertools.product((False, True), repeat=len(order) - 1)
        ways = [split(order, places) for places in every]
        assert cost(cut) == min(cost(way) for way in ways if all(len(some) <= most for some in way))


def split(order: Sequence[int], places: Sequence[bool]) -> list[list[int]]:
    found = [[order[0]]]
    for index, new in zip(order[1:], places, strict=True):
        if new:
            found.append([])
        found[-1].append(index)
    return found


def test_padding_and_neighbours_change_nothing(model: Path) -> None:
    parts = parts_of(model)
    torch.nn.init.normal_(parts.head.weight)
    together = parts(rows())
    assert [len(part) for part in together.logprobs.split(rows().lengths)] == [2, 3, 1]
    for index, part in enumerate(
        zip(together.logprobs.split(rows().lengths), together.values.split(rows().lengths), strict=True)
    ):
        alone = parts(rows([index]))
        assert torch.allclose(part[0], alone.logprobs, atol=1e-6)
        assert torch.allclose(part[1], alone.values, atol=1e-6)
    # And against the plain forward pass of the plain model.
    plain, _ = tiny_rl.load(model)
    prompt, answer = ROWS[1]
    logits = plain(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
    wanted = [logits[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer)]
    assert parts.reference(rows([1])).tolist() == pytest.approx(wanted, abs=1e-5)


def disturbed(parts: Parts) -> Parts:
    """As after some training: adapters that do something, each something else."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for group in parts.groups():
            for _, parameter in group:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return parts


def test_adapters_share_one_base_and_do_not_meet(model: Path) -> None:
    parts = parts_of(model)
    trained = [name for group in parts.groups() for name, _ in group]
    fresh, base = parts(rows()), parts.reference(rows())
    assert torch.allclose(fresh.logprobs, base, atol=1e-6)  # a new adapter does nothing
    disturbed(parts)
    assert not torch.allclose(parts(rows()).logprobs, base, atol=1e-3)
    assert torch.equal(parts.reference(rows()), base)
    read = parts(rows())
    read.logprobs.sum().backward(retain_graph=True)
    policy, value = parts.groups()
    assert all(p.grad is not None for _, p in policy)
    assert all(p.grad is None for _, p in value)
    read.values.sum().backward()
    assert all(p.grad is not None for _, p in value)
    assert [name for group in parts.groups() for name, _ in group] == trained
    assert not any("lora" not in name and not name.startswith("head.") for name in trained)
    assert sum(p.numel() for p in parts.parameters()) < 2 * sum(p.numel() for p in tiny_rl.load(model)[0].parameters())


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_an_adapted_layer_is_that_of_peft(dtype: Any, close: float) -> None:
    """Outputs and gradients; in bfloat16 under autocast, adapters in float32, as a training has it."""
    from peft import LoraConfig
    from peft.tuners.lora import Linear

    torch.manual_seed(0)
    base = torch.nn.Linear(12, 10).to(dtype)
    x, upstream = torch.randn(2, 5, 12).to(dtype), torch.randn(2, 5, 10).to(dtype)
    found = []
    for kind in (Linear, adapters.AdaptedLinear):
        layer = kind(base, "policy", config=LoraConfig(r=4, lora_alpha=7), r=4, lora_alpha=7)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in layer.named_parameters():
            if ".policy." in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) / 4
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = layer(given)
        out.backward(upstream)
        down, up = layer.lora_A["policy"].weight.grad, layer.lora_B["policy"].weight.grad
        found.append((out.detach(), given.grad, down, up))
        assert out.dtype == dtype
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert (ours - theirs).abs().max() <= close * theirs.abs().max()


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_with_recomputed_activations_are_the_same(model: Path, lora: bool, shared: bool) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        parts = disturbed(parts_of(model, lora=lora, shared=shared, checkpointing=checkpointing))
        read = parts(rows())
        (read.logprobs.sum() + read.values.square().sum()).backward()
        found.append({name: p.grad for group in parts.groups() for name, p in group})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient is not None
        assert torch.allclose(gradient, found[1][name], atol=1e-5), name


def test_merged_weights_are_the_policy(model: Path) -> None:
    parts = disturbed(parts_of(model))
    wanted = parts(rows()).logprobs
    plain, _ = tiny_rl.load(model)
    plain.load_state_dict(dict(parts.policy_weights()), strict=False)
    with torch.no_grad():
        streamed, _ = answer_logits(plain, rows())
        merged, _ = answer_logits(parts.merged(), rows())
    for logits in (streamed, merged):
        found = logits.log_softmax(-1).gather(-1, rows().tokens.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(found, wanted, atol=1e-5)
