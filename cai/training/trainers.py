"""TRL's RewardTrainer and DPOTrainer with soft labels, row weights and all pairs of a group in one batch element.

TRL's own preparation of data knows neither groups nor soft labels, so ours comes tokenised and the preparation is left
out; everything else (optimiser, schedule, accelerate, checkpoints, logging) is TRL's and transformers'. Importing this
module loads torch and TRL.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import DPOTrainer, RewardTrainer

from cai.errors import InputError
from cai.training.losses import grouped, soft_cross_entropy
from cai.training.models import share_weights
from cai.training.ppo.rollout import Processes

COLUMNS = ["prompt_ids", "completion_ids", "first", "second", "p", "weight", "ref"]


class _Prepared:
    """What both trainers leave out of TRL's: data that are prepared already, columns that the collator wants, and that
    it switches off the adapters' dropout with the model's own.
    """

    def __init__(self, *args: Any, peft_config: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, peft_config=peft_config, **kwargs)  # type: ignore[call-arg]
        for name, module in self.model.named_modules():  # type: ignore[attr-defined]
            if ".lora_dropout." in name:
                module.p = peft_config.lora_dropout

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = COLUMNS

    def _note(self, mode: str, **figures: Any) -> None:
        for name, value in figures.items():
            gathered = self.accelerator.gather_for_metrics(value.detach().float().mean())  # type: ignore[attr-defined]
            self._metrics[mode][name].append(gathered.mean().item())  # type: ignore[attr-defined]

    def _save(self, *args: Any, **kwargs: Any) -> None:
        super()._save(*args, **kwargs)  # type: ignore[misc]
        forget_arguments(args[0] if args else kwargs.get("output_dir") or self.args.output_dir)  # type: ignore[attr-defined]


def forget_arguments(folder: Any) -> None:
    """Remove transformers' pickle of the training arguments; ours stand in lineage.json."""
    from pathlib import Path

    (Path(folder) / "training_args.bin").unlink(missing_ok=True)


def correct(difference: Any, p: Any) -> Any:
    """1 where the difference is on the label's side, 0 where not, 1/2 where either is even."""
    return 0.5 + 0.5 * torch.sign(difference) * torch.sign(p - 0.5)


class SoftRewardTrainer(_Prepared, RewardTrainer):  # type: ignore[misc]
    """Cross-entropy on the soft label of r(first) - r(second)."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        mode = "train" if self.model.training else "eval"
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        rewards = outputs.logits.squeeze(-1)
        first, second = rewards[inputs["first"]], rewards[inputs["second"]]
        difference = first - second
        loss = grouped(soft_cross_entropy(difference, inputs["p"]), inputs["weight"], inputs["elements"])
        coefficient = self.args.center_rewards_coefficient
        if coefficient is not None:
            loss = loss + coefficient * torch.mean((first + second) ** 2)
        with torch.no_grad():
            tokens = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
            if mode == "train":
                self._total_train_tokens += tokens
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
            self._note(mode, mean_reward=rewards, accuracy=correct(difference, inputs["p"]), margin=difference)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Any, Any, Any]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None


class SoftDPOTrainer(_Prepared, DPOTrainer):  # type: ignore[misc]
    """-p log s(h) - (1 - p) log s(-h), the reference's log-probabilities computed once, before the first step.

    The reference is the model as it was loaded; each process reads its share of the rows. A training that is resumed
    loads it again before its checkpoint's weights, so the reference stays the parent. Without
    `precompute_ref_log_probs`, which needs adapters on a model that nothing wraps, it is the model with its adapters
    switched off, step by step.
    """

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if self.is_deepspeed_enabled and self.accelerator.state.deepspeed_plugin.zero_stage == 3:
            raise InputError("DPO's reference cannot be read under DeepSpeed ZeRO 3", mend="use zero_stage: 2, or FSDP")
        processes = Processes(self.accelerator)
        before = self.model.device
        self.model.to(processes.device)
        share_weights(self.model, processes.count)
        training = self.model.training
        self.model.eval()
        longest_first = sorted(range(len(dataset)), key=lambda i: -max(map(len, dataset[i]["completion_ids"])))
        own = processes.share(longest_first)
        found: list[tuple[int, list[float]]] = []
        for begin in range(0, len(own), batch_size):
            elements = {index: dataset[index] for index in own[begin : begin + batch_size]}
            batch = self.data_collator(list(elements.values()))
            here = {key: value.to(processes.device) for key, value in batch.items()}
            with torch.no_grad(), self.accelerator.autocast():
                sums = self._sums(self.model, here, reference=True).float().cpu().tolist()
            for index, element in elements.items():
                count = len(element["completion_ids"])
                found.append((index, sums[:count]))
                sums = sums[count:]
        self.model.train(training)
        if self.is_fsdp_enabled:
            self.model.to(before)
        known = dict(processes.gathered(found))
        return dataset.add_column("ref", [known[index] for index in range(len(dataset))])

    def _reference(self, model: Any, inputs: dict[str, Any]) -> Any:
        training = model.training
        model.eval()
        with torch.no_grad():
            sums = self._sums(model, inputs, reference=True)
        model.train(training)
        return sums

    def _sums(self, model: Any, inputs: dict[str, Any], *, reference: bool = False) -> Any:
        """Sum of the completion's token log-probabilities, shape (rows,)."""
        import contextlib

        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        off = contextlib.nullcontext()
        if reference and hasattr(model, "disable_adapter"):
            off = model.disable_adapter()
        with off:
            outputs = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                use_cache=False,
                labels=labels,
                fused_lm_head=True,
            )
        length = inputs["completion_mask"].size(1) - 1
        return outputs.log_probs[:, -length:].sum(dim=1)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        mode = "train" if self.model.training else "eval"
        ratios = self._sums(model, inputs) - (inputs["ref"] if "ref" in inputs else self._reference(model, inputs))
        h = self.beta * (ratios[inputs["first"]] - ratios[inputs["second"]])
        loss = grouped(soft_cross_entropy(h, inputs["p"]), inputs["weight"], inputs["elements"])
        with torch.no_grad():
            tokens = self.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
            if mode == "train":
                self._total_train_tokens += tokens
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
            rewards = self.beta * ratios
            self._note(
                mode,
                **{
                    "rewards/chosen": rewards[inputs["first"]],
                    "rewards/rejected": rewards[inputs["second"]],
                    "rewards/margins": h,
                    "rewards/accuracies": correct(h, inputs["p"]),
                },
            )
        return (loss, {}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Any, Any, Any]:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self._compute_loss(model, inputs, False).detach(), None, None
