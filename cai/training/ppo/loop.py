"""The story of PPO: write, score, read, improve; look, save; again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai.store import Log
from cai.training.base import Reward, TrainingError
from cai.training.ppo import state
from cai.training.ppo.buffer import Buffer, figures_of
from cai.training.ppo.config import Config
from cai.training.ppo.kl import Adaptive, Coefficient, Fixed
from cai.training.ppo.losses import policy_loss, value_loss
from cai.training.ppo.parts import Parts
from cai.training.ppo.rollout import Collector, Encoded, drawn, engine_gap, number, passes, rows_of

STATISTICS = ("policy_loss", "value_loss", "ratio", "clipped", "value_clipped", "step_kl", "step_entropy")


class Loop:
    """PPO from a state to the end.

    Args:
        module: `parts`, or what accelerate wrapped around them: gradients are only right through it.
        folder: where states to resume from are kept.
        inputs: digests of all that the training depends on, by name; a state of another one is refused.
    """

    def __init__(
        self,
        parts: Parts,
        module: Any,
        collector: Collector,
        config: Config,
        *,
        folder: Path,
        metrics: Path,
        seed: int,
        inputs: Mapping[str, str],
        say: Callable[[str], None] = print,
    ) -> None:
        self.parts, self.module, self.collector, self.config = parts, module, collector, config
        self.folder, self.metrics, self.seed, self.inputs, self.say = folder, metrics, seed, dict(inputs), say
        self.processes = collector.processes
        policy, value = parts.groups()
        self.named = [*policy, *value]
        self.rates = (config.learning_rate, config.value_learning_rate or config.learning_rate)
        self.optimizer = torch.optim.AdamW(
            [{"params": [p for _, p in group]} for group in (policy, value)], lr=0.0, weight_decay=0.0, fused=True
        )
        self.beta: Coefficient = (
            Fixed(config.kl.coefficient)
            if config.kl.target is None
            else Adaptive(config.kl.coefficient, target=config.kl.target, horizon=config.kl.horizon)
        )
        self.done = 0
        self._disagreed = False
        self._far_from_1 = False
        self._near_1 = config.ratio_tolerance or (1e-3 if config.dtype == "float32" else 0.1)

    def resume(self) -> bool:
        """Go on from the newest state, if there is one.

        Raises:
            RunError: it belongs to another training.
        """
        path = state.newest(self.folder)
        if path is None:
            if self.processes.main:
                state.trim_metrics(self.metrics, 0)
            return False
        told, weights, moments = state.load(path, inputs=self.inputs)
        self.parts.load_trained(weights)
        state.load_optimizer(self.optimizer, self.named, moments)
        self.done, self.beta.value = told["update"], told["beta"]
        if self.processes.main:
            state.trim_metrics(self.metrics, self.done)
        return True

    def save(self) -> None:
        """Leave a state behind; only the main process writes."""
        if self.processes.main:
            state.save(
                self.folder,
                update=self.done,
                tensors=self.parts.trained_state(),
                optimizer=state.optimizer_tensors(self.optimizer, self.named),
                told={"beta": self.beta.value, "inputs": self.inputs},
            )
        self.processes.wait()

    def run(self, prompts: Sequence[Encoded], reward: Reward) -> Iterator[dict[str, Any]]:
        """Update until the last; yields each update's figures, which are in `metrics.jsonl` by then.

        Raises:
            TrainingError: a loss or gradient is not a number; the parameters are those of the last good step.
        """
        config = self.config
        with Log(self.metrics, key="update") if self.processes.main else _NoLog() as log:
            while self.done < config.updates:
                begun = time.perf_counter()
                rows = drawn(prompts, config.batch // config.samples_per_prompt, update=self.done, seed=self.seed)
                rows = [row for row in rows for _ in range(config.samples_per_prompt)]
                buffer, seconds = self.collector.collect(
                    rows, reward, seed=self.seed, update=self.done, beta=self.beta.value
                )
                improving = time.perf_counter()
                learned = self.improve(buffer)
                ended = time.perf_counter()
                rollout = figures_of(buffer)
                gap = engine_gap(buffer)
                figures = {
                    "update": self.done + 1,
                    "samples": (self.done + 1) * config.batch,
                    **rollout,
                    "beta": self.beta.value,
                    **learned,
                    **({} if gap is None else {"engine_gap": gap}),
                    "samples_per_second": config.batch / (ended - begun),
                    "tokens_per_second": float(buffer.mask.sum()) / (ended - begun),
                    "batch_seconds": ended - begun,
                    "seconds": {**seconds, "improve": ended - improving},
                }
                self._agrees(gap)
                self._begins_at_1(learned["first_ratio"])
                self.beta.update(rollout["kl"], config.batch)
                self.done += 1
                log.append({"update": figures.pop("update"), **_rounded(figures)})
                yield {"update": self.done, **figures}

    def improve(self, buffer: Buffer) -> dict[str, float]:
        """Epochs of clipped steps on one buffer; means over its tokens (`first_ratio`: of the first pass, which is
        1).
        """
        config = self.config
        sums = torch.zeros(len(STATISTICS), dtype=torch.float64)
        tokens, steps, first, norms = 0.0, 0, 0.0, [0.0, 0.0]
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._schedule()
        for epoch in range(config.epochs):
            seed = number("minibatch", self.seed, self.done, epoch)
            order = torch.randperm(len(buffer.samples), generator=torch.Generator().manual_seed(seed)).tolist()
            epoch_kl = 0.0
            for part in range(config.minibatches):
                rows = order[part :: config.minibatches]
                told, reach = self._step(buffer, rows)
                count = float(buffer.mask[rows].sum())
                if steps == 0:
                    first = reach
                sums += told
                tokens += count
                steps += 1
                epoch_kl += float(told[STATISTICS.index("step_kl")])
                norms = [total + norm for total, norm in zip(norms, self._norms, strict=True)]
            if config.stop_epochs_at_kl is not None and epoch_kl / float(buffer.mask.sum()) > config.stop_epochs_at_kl:
                break
        means = dict(zip(STATISTICS, (sums / tokens).tolist(), strict=True))
        return {
            **means,
            "first_ratio": first,
            "policy_grad_norm": norms[0] / steps,
            "value_grad_norm": norms[1] / steps,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "steps": steps,
        }

    def _step(self, buffer: Buffer, rows: Sequence[int]) -> tuple[Tensor, float]:
        """One step of the optimiser on these rows; sums of the statistics, and the ratio farthest from 1."""
        config, processes = self.config, self.processes
        total = float(buffer.mask[list(rows)].sum())
        parts = passes(processes.share(rows), buffer.samples, config.micro_batch, processes.device)
        self.optimizer.zero_grad(set_to_none=True)
        sums = torch.zeros(len(STATISTICS), dtype=torch.float64)
        reach = 1.0
        for some in parts:
            with processes.last_backward(self.module, some is parts[-1]):
                told, farthest = self._backward(buffer, some, total)
            sums += told
            reach = max(reach, farthest, key=lambda ratio: abs(ratio - 1))
        sums = torch.tensor(processes.summed(list(sums)), dtype=torch.float64)
        self._norms = [
            float(torch.nn.utils.clip_grad_norm_(group["params"], config.max_grad_norm))
            for group in self.optimizer.param_groups
        ]
        if not torch.isfinite(sums).all() or not all(map(_finite, self._norms)):
            raise TrainingError(
                f"the loss or its gradient is not a number in update {self.done + 1}",
                where=str(self.folder),
                mend="lower learning_rate, clip rewards (reward_clip), or use float32; the last saved state is good",
            )
        self.optimizer.step()
        return sums, reach

    def _backward(self, buffer: Buffer, some: Sequence[int], total: float) -> tuple[Tensor, float]:
        config, processes = self.config, self.processes
        samples = [buffer.samples[i] for i in some]
        rows = rows_of(samples, self.collector.drawing.pad, processes.device)
        width = max(rows.lengths)

        def of(table: Tensor) -> Tensor:
            return table[list(some), :width].to(processes.device)

        mask = of(buffer.mask)
        with processes.autocast():
            read = self.module(rows)
        new, values, spread = (rows.table(flat, width) for flat in (read.logprobs, read.values, read.entropy))
        policy = policy_loss(new, of(buffer.old), of(buffer.advantages), mask, clip=config.clip)
        value, value_clipped = value_loss(values, of(buffer.values), of(buffer.returns), mask, clip=config.value_clip)
        loss = policy.loss + config.value_coefficient * value
        entropy = (spread * mask).sum()
        if config.entropy_coefficient:
            loss = loss - config.entropy_coefficient * entropy
        # DistributedDataParallel takes the mean over processes; the sum over all tokens is wanted.
        (loss * processes.count / total).backward()
        told = (policy.loss, value, policy.ratio, policy.clipped, value_clipped, policy.kl, entropy)
        ratios = ((new.detach() - of(buffer.old)) * mask).exp().flatten()
        return torch.stack([figure.detach().double().cpu() for figure in told]), float(
            ratios[(ratios - 1).abs().argmax()]
        )

    def _schedule(self) -> float:
        """The learning rate's factor in this update."""
        rising = min(1.0, (self.done + 1) / (self.config.warmup + 1))
        falling = 1 - self.done / self.config.updates if self.config.schedule == "linear" else 1.0
        return rising * falling

    def _agrees(self, gap: float | None) -> None:
        if gap is None or gap <= self.config.logprob_tolerance or self._disagreed:
            return
        self._disagreed = True
        self.say(
            f"the engine's log-probabilities are {gap:.3f} nats per token from the trainer's, more than "
            f"logprob_tolerance ({self.config.logprob_tolerance}); see engine_gap in metrics.jsonl"
        )

    def _begins_at_1(self, ratio: float) -> None:
        """Say once where the first pass already clips by rounding: a row's figures move with what is beside it."""
        if abs(ratio - 1) <= self._near_1 or self._far_from_1:
            return
        self._far_from_1 = True
        self.say(
            f"a ratio of the first pass is {ratio:.3f}, farther from 1 than ratio_tolerance ({self._near_1:g}): "
            "rounding alone moves the policy's probabilities; float32 does not, see first_ratio in metrics.jsonl"
        )


class _NoLog:
    """Of a process that is not the main one."""

    def __enter__(self) -> _NoLog:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def append(self, row: Any) -> None:
        return None


def _finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def _rounded(figures: Any) -> Any:
    """Six significant digits: more are noise, and make the file hard to read."""
    if isinstance(figures, dict):
        return {key: _rounded(value) for key, value in figures.items()}
    return float(f"{figures:.6g}") if isinstance(figures, float) else figures
