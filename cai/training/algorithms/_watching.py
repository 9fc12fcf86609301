"""Watching a TRL trainer: at intervals the model answers the watched prompts, and the stop rule is asked.

PPO takes its looks itself (`cai.training.ppo.session`). Importing this module loads torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from cai.errors import InputError, MissingDependency
from cai.training.base import Job
from cai.training.data import tokens
from cai.training.models import check_room, load_model, share_weights
from cai.training.ppo.buffer import Sample
from cai.training.ppo.losses import entropy, token_logprobs
from cai.training.ppo.parts import answer_logits
from cai.training.ppo.rollout import Processes, number, rows_of
from cai.training.ppo.session import ends_of
from cai.training.rollouts import Drawing
from cai.training.rollouts.transformers import Sampler
from cai.training.watch import BEST, Watch, WatchConfig, kept_step

ANSWERS_AT_ONCE = 16


class Watching(TrainerCallback):  # type: ignore[misc]
    """Looks of one training; keeps the trained weights of the best one, where a gold score says which that is.

    Of several processes each writes its share of the answers, or, where weights are sharded, all write all of them,
    since each forward pass needs every process. The main process scores and decides; it alone writes files.

    Args:
        trainer: TRL's. The parent is its model without adapters, or is loaded beside it.

    Raises:
        InputError: the weights are sharded in a way that a callback cannot read (FSDP 1, ZeRO 3), or the model has no
        room for a watched prompt and its answer.
    """

    def __init__(self, job: Job, config: WatchConfig, trainer: Any, tokenizer: Any, *, total: int) -> None:
        self.watch = Watch(job.out, config, job.watched, total=total, proxy=job.reward, gold=job.gold, say=job.say)
        self._job, self._config, self._trainer, self._tokenizer = job, config, trainer, tokenizer
        self._processes = Processes(trainer.accelerator)
        self._sharded = bool(trainer.is_fsdp_enabled)
        self._parent: Any = None
        self._best = job.out / BEST
        self._prompts: tuple[tuple[int, ...], ...] = ()
        self.step: int | None = None
        """Whose weights were put back, in the main process; None: those of the last step are the result."""
        if self.watch.on:
            refuse_unreadable(job, trainer)
            self._prompts = tuple(
                tuple(tokens(tokenizer, prompt.messages, begin_answer=True)) for prompt in self.watch.prompts
            )
            check_room(job.parent, max(map(len, self._prompts)), config.max_tokens)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look_if_due(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._look_if_due(state.global_step):
            control.should_training_stop = control.should_save = True
        return control

    def _look_if_due(self, step: int) -> bool:
        """Whether the watch says that training should end; the same in every process."""
        if not self.watch.planned(step):
            return False
        if not self._agreed(self.watch.due(step)):
            # A kill may have come between a look and its weights.
            if self._agreed(self._processes.main and self.watch.best_by_gold() == step != kept_step(self._best)):
                self._keep(step)
            return False
        answers, gaps, spread = self.answers()
        best = stop = False
        if self._processes.main:
            verdict = self.watch.look(step, answers, kl=sum(gaps) / len(gaps), entropy=spread)
            best = self.watch.best_by_gold() == step
            stop = verdict.stop
            if stop:
                self._job.say(f"stopped at step {step}: {verdict.why}; the result is step {verdict.best}")
        if self._agreed(best):
            self._keep(step)
        return self._agreed(stop)

    def _agreed(self, said: bool) -> bool:
        """What the main process says."""
        return self._processes.summed([float(said and self._processes.main)])[0] > 0

    def _trained(self) -> Sequence[tuple[str, Any]]:
        model = self._model
        for module in model.modules() if self._sharded else ():
            if hasattr(module, "reshard"):  # what a forward pass left gathered is a copy
                module.reshard()
        return [(name, p) for name, p in model.named_parameters() if p.requires_grad]

    @property
    def _model(self) -> Any:
        return self._trainer.accelerator.unwrap_model(self._trainer.model)

    def _keep(self, step: int) -> None:
        state = {name: _whole(p.detach()).cpu().contiguous() for name, p in self._trained()}
        if self._processes.main:
            temporary = self._best.with_suffix(".new")
            save_file(state, temporary, {"step": str(step)})
            temporary.replace(self._best)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def answers(self) -> tuple[list[str], list[float], list[float]]:
        """An answer to each watched prompt, its log(policy / parent), and the policy's mean entropy over its tokens.

        Both models are taken at the temperature that the answers were drawn at, so that the mean is the KL of what was
        drawn from; at temperature 0 as they are.
        """
        model = self._model
        training = model.training
        model.eval()
        drawing = Drawing(
            self._config.max_tokens,
            self._config.temperature,
            ends_of(model, self._tokenizer),
            self._tokenizer.pad_token_id,
        )
        every = range(len(self._prompts))
        own = list(every) if self._sharded else self._processes.share(every)
        prompts = [self._prompts[i] for i in own]
        # Each row has a random stream of its own: the training's is left alone, and a row's answer does not depend on
        # its batch or process.
        seeds = [number("watch", self._job.seed, i) for i in own]
        with self._trainer.accelerator.autocast():
            written = Sampler(model, batch=ANSWERS_AT_ONCE).write(prompts, seeds, drawing)
            samples = [
                Sample(prompt, one.tokens, "", one.finished, 0.0) for prompt, one in zip(prompts, written, strict=True)
            ]
            read = self._read(model, samples)
            with self._reference(model) as reference:
                known = self._read(reference, samples) if reference is not None else read
        model.train(training)
        texts = self._tokenizer.batch_decode([list(one.tokens) for one in written], skip_special_tokens=True)
        told = [(text, a[0] - b[0], a[1]) for text, a, b in zip(texts, read, known, strict=True)]
        if not self._sharded:
            told = self._processes.gathered(told)
        return [one[0] for one in told], [one[1] for one in told], [one[2] for one in told]

    @contextlib.contextmanager
    def _reference(self, model: Any) -> Iterator[Any]:
        """The parent; None in a process whose reading of it is not needed."""
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                yield model
            return
        if self._sharded and not self._processes.main:  # what is loaded here may be empty; the main process tells
            yield None
            return
        if self._parent is None:
            dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
            pad = self._tokenizer.pad_token_id
            with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # loading seeds
                parent = load_model(self._job.parent, "causal", dtype=dtype, pad=pad, seed=0).eval()
            if not self._sharded:
                share_weights(parent.to(self._processes.device), self._processes.count)
            self._parent = parent
        yield self._parent.to(self._processes.device)
        self._parent.to("cpu")  # between two looks the training needs the room

    def _read(self, model: Any, samples: Sequence[Sample]) -> list[tuple[float, float]]:
        """Each answer's log-probability, and the mean entropy of its tokens in nats."""
        found: dict[int, tuple[float, float]] = {}
        order = sorted(range(len(samples)), key=lambda i: len(samples[i].prompt) + len(samples[i].answer))
        size = self._trainer.args.per_device_train_batch_size
        for begin in range(0, len(order), size):
            some = order[begin : begin + size]
            rows = rows_of([samples[i] for i in some], self._tokenizer.pad_token_id, self._processes.device)
            logits = answer_logits(model, rows)[0].float() / (self._config.temperature or 1.0)
            sums = [float(part.sum()) for part in token_logprobs(logits, rows.tokens).split(rows.lengths)]
            spread = [float(part.mean()) for part in entropy(logits).split(rows.lengths)]
            found.update(zip(some, zip(sums, spread, strict=True), strict=True))
        return [found[i] for i in range(len(samples))]

    def finish(self) -> dict[str, Any]:
        """Put the best look's weights back, draw the picture; a summary for the metrics."""
        self._parent = None
        if not self._agreed(bool(self.watch.looks)):
            return {}
        if self._agreed(self._processes.main and self._behind_best()):
            self._put_back()
            self.step = self.watch.verdict().best
        if self._processes.main:
            try:
                self.watch.draw(self._job.out / "watch.png")
            except MissingDependency as error:
                self._job.say(f"no plot: {error}")
        return {"watch": self.watch.summary()}

    def _behind_best(self) -> bool:
        """Whether the best look is not the last, and its weights are here: a kill can have come before they were."""
        best = self.watch.best_by_gold()
        return best is not None and best != self.watch.looks[-1].step and best == kept_step(self._best)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _put_back(self) -> None:
        kept = load_file(self._best) if self._processes.main else {}
        for name, parameter in self._trained():
            value = kept[name] if self._processes.main else torch.empty(parameter.shape, dtype=parameter.dtype)
            parameter.copy_(_as(parameter, value.to(self._processes.device), self._processes.count))


def refuse_unreadable(job: Job, trainer: Any) -> None:
    """A trainer whose weights cannot be read between steps.

    Raises:
        InputError: it is one.
    """
    accelerator = trainer.accelerator
    stage = getattr(accelerator.state.deepspeed_plugin, "zero_stage", 0) if trainer.is_deepspeed_enabled else 0
    if stage == 3 or (trainer.is_fsdp_enabled and not accelerator.is_fsdp2):
        raise InputError(
            f"a training under {'DeepSpeed ZeRO 3' if stage == 3 else 'FSDP 1'} cannot be watched",
            where=f"train.{job.name}",
            mend="use fsdp_version: 2 or zero_stage: 2, or set watch: {prompts: 0}",
        )


def _whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from its shards by all processes, or as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def _as(parameter: Any, value: Tensor, processes: int) -> Tensor:
    """The main process's `value`, sharded as `parameter` is, in every process."""
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    if processes > 1:
        torch.distributed.broadcast(value, 0)
    return value
