"""Our losses beside TRL's own, on the same model and rows: equal where labels are hard."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer  # noqa: E402

from cai.training.batches import PairCollator  # noqa: E402
from cai.training.data import PairSource, encode, read_pairs  # noqa: E402
from cai.training.losses import grouped, soft_cross_entropy  # noqa: E402
from cai.training.models import Lora, load_model, load_tokenizer, peft_config  # noqa: E402
from cai.training.trainers import SoftDPOTrainer, SoftRewardTrainer  # noqa: E402
from tests.training import tiny_rl  # noqa: E402
from tests.training.test_pairs import preferences, write  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def parts(tmp_path: Path) -> Any:
    """A tiny model's folder, its tokenizer, and pairs (one a group) with hard labels, 1 and 0 in turn."""
    folder = tiny_rl.write_model(tmp_path / "model")
    rows = preferences(5, answers=2, p=1.0)
    data = write(tmp_path / "trl", rows)
    found = read_pairs([PairSource("ai", data)])
    tokenizer = load_tokenizer(folder)
    elements = [replace(e, pairs=(replace(e.pairs[0], p=1.0 - number % 2),)) for number, e in enumerate(found.train)]
    assert {e.pairs[0].p for e in elements} == {0.0, 1.0}
    encoded, _ = encode(elements, tokenizer, longest=128)
    plain = []
    for e in elements:
        (pair,) = e.pairs
        better, worse = (pair.first, pair.second) if pair.p else (pair.second, pair.first)
        plain.append(
            {
                "prompt": [m.row() for m in e.messages],
                "chosen": [{"role": "assistant", "content": e.answers[better]}],
                "rejected": [{"role": "assistant", "content": e.answers[worse]}],
            }
        )
    return folder, tokenizer, Dataset.from_list([e.row() for e in encoded]), Dataset.from_list(plain), tmp_path


def loss_and_gradient(trainer: Any) -> tuple[float, dict[str, Any]]:
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.zero_grad()
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}


def arguments(kind: Any, folder: Path, **more: Any) -> Any:
    settings = {"per_device_train_batch_size": 5, "report_to": "none", "use_cpu": True, "bf16": False, "seed": 0}
    return kind(output_dir=str(folder), gradient_checkpointing=False, disable_dropout=True, **settings, **more)


def same(one: tuple[float, Any], other: tuple[float, Any]) -> None:
    assert one[0] == pytest.approx(other[0], abs=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert torch.allclose(gradient, other[1][name], atol=1e-6), name
    assert any(float(gradient.abs().max()) > 1e-6 for gradient in one[1].values())


def test_reward_model_with_hard_labels_is_trls(parts: Any) -> None:
    folder, tokenizer, ours, plain, out = parts
    model = load_model(folder, "reward", dtype="float32", pad=tokenizer.pad_token_id, seed=0)
    twin = copy.deepcopy(model)
    collator = PairCollator(tokenizer.pad_token_id)
    soft = SoftRewardTrainer(
        model,
        arguments(RewardConfig, out / "a"),
        data_collator=collator,
        train_dataset=ours,
        processing_class=tokenizer,
    )
    trl = RewardTrainer(twin, arguments(RewardConfig, out / "b"), train_dataset=plain, processing_class=tokenizer)
    same(loss_and_gradient(soft), loss_and_gradient(trl))


def test_dpo_with_hard_labels_is_trls(parts: Any) -> None:
    folder, tokenizer, ours, plain, out = parts
    model = load_model(folder, "causal", dtype="float32", pad=tokenizer.pad_token_id, seed=0)
    twin, reference = copy.deepcopy(model), copy.deepcopy(model)
    collator = PairCollator(tokenizer.pad_token_id)
    soft = SoftDPOTrainer(
        model,
        args=arguments(DPOConfig, out / "a", precompute_ref_log_probs=True, beta=0.3),
        data_collator=collator,
        train_dataset=ours,
        processing_class=tokenizer,
    )
    trl = DPOTrainer(
        twin,
        ref_model=reference,
        args=arguments(DPOConfig, out / "b", beta=0.3),
        train_dataset=plain,
        processing_class=tokenizer,
    )
    with torch.no_grad():  # away from the reference, where h is 0 whatever the labels
        for one, other in zip(soft.model.parameters(), trl.model.parameters(), strict=True):
            noise = 0.05 * torch.randn(one.shape, generator=torch.Generator().manual_seed(one.numel()))
            one.add_(noise)
            other.add_(noise)
    same(loss_and_gradient(soft), loss_and_gradient(trl))


def test_adapters_switched_off_are_the_reference(parts: Any) -> None:
    """Read ahead or in the step: the same losses and gradients, also where dropout is on and adapters have moved."""
    folder, tokenizer, ours, _, out = parts

    def found(name: str, ahead: bool) -> tuple[float, Any]:
        lora = Lora(rank=4, dropout=0.5)
        trainer = SoftDPOTrainer(
            load_model(folder, "causal", dtype="float32", pad=tokenizer.pad_token_id, seed=0),
            args=arguments(DPOConfig, out / name, precompute_ref_log_probs=ahead, beta=0.3),
            data_collator=PairCollator(tokenizer.pad_token_id),
            train_dataset=ours,
            processing_class=tokenizer,
            peft_config=peft_config(lora, "causal"),
        )
        assert ("ref" in trainer.train_dataset.column_names) == ahead
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    generator = torch.Generator().manual_seed(parameter.numel())
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        torch.manual_seed(7)
        told = loss_and_gradient(trainer)
        assert trainer.model.training
        return told

    same(found("a", True), found("b", False))


def test_soft_labels_by_hand() -> None:
    d = torch.tensor([0.0, 1.0, -2.0], requires_grad=True)
    p = torch.tensor([0.5, 0.9, 0.2])
    loss = soft_cross_entropy(d, p)
    expected = [0.6931472, -0.9 * -0.3132617 - 0.1 * -1.3132617, -0.2 * -2.1269280 - 0.8 * -0.1269280]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
    loss.sum().backward()
    assert d.grad.tolist() == pytest.approx((torch.sigmoid(d.detach()) - p).tolist(), abs=1e-6)
    assert float(grouped(loss.detach(), torch.tensor([1.0, 0.5, 0.5]), 2)) == pytest.approx(
        (expected[0] + 0.5 * expected[1] + 0.5 * expected[2]) / 2, abs=1e-6
    )


def test_a_group_counts_as_one_whatever_its_size(tmp_path: Path) -> None:
    folder = tiny_rl.write_model(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    found = read_pairs([PairSource("ai", write(tmp_path / "trl", preferences(3, answers=4)))])
    encoded, _ = encode(found.train, tokenizer, longest=128)
    batch = PairCollator(tokenizer.pad_token_id)([e.row() for e in encoded])
    assert batch["input_ids"].shape[0] == 12  # each answer once, not once a pair
    assert batch["p"].shape[0] == 18
    assert float(batch["weight"].sum()) == pytest.approx(3)
    assert int(batch["elements"]) == 3
