"""Watching a TRL trainer: at intervals the model answers the watched prompts, and the stop rule is asked.

PPO takes its looks itself (`cai.training.ppo.session`). Importing this module loads torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from cai.errors import MissingDependency
from cai.training.base import Job
from cai.training.data import tokens
from cai.training.models import load_model
from cai.training.watch import Watch, WatchConfig


class Watching(TrainerCallback):  # type: ignore[misc]
    """Looks of one training; keeps the trained weights of the best one, where a gold score says which that is.

    Args:
        model: as the trainer holds it, unwrapped; its parent is its base without adapters, or is loaded beside it.
    """

    def __init__(self, job: Job, config: WatchConfig, model: Any, tokenizer: Any, *, total: int) -> None:
        self.watch = Watch(job.out, config, job.watched, total=total, proxy=job.reward, gold=job.gold)
        self._job, self._config, self._model, self._tokenizer = job, config, model, tokenizer
        self._parent: Any = None
        self._best = job.out / "best.safetensors"

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._look_if_due(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if self._look_if_due(state.global_step):
            control.should_training_stop = control.should_save = True
        return control

    def _look_if_due(self, step: int) -> bool:
        """Whether the watch says that training should end."""
        if not self.watch.due(step):
            return False
        answers, gaps, entropy = self.answers()
        verdict = self.watch.look(step, answers, kl=sum(gaps) / len(gaps), entropy=entropy)
        if self.watch.looks[-1].gold and verdict.best == step:
            save_file({n: p.detach().cpu().contiguous() for n, p in self._trained()}, self._best, {"step": str(step)})
        if verdict.stop:
            self._job.say(f"stopped at step {step}: {verdict.why}; the result is step {verdict.best}")
        return verdict.stop

    def _trained(self) -> Sequence[tuple[str, Any]]:
        return [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def answers(self) -> tuple[list[str], list[float], list[float]]:
        """An answer to each watched prompt, its log(policy / parent), and the policy's mean entropy over its tokens."""
        training = self._model.training
        self._model.eval()
        texts, gaps, entropy = [], [], []
        device = next(self._model.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._job.seed)
            for prompt in self.watch.prompts:
                ids = torch.tensor([tokens(self._tokenizer, prompt.messages, begin_answer=True)], device=device)
                drawn = self._config.temperature > 0
                more = {"temperature": self._config.temperature, "top_k": 0, "top_p": 1.0} if drawn else {}
                whole = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=self._config.max_tokens,
                    do_sample=drawn,
                    pad_token_id=self._tokenizer.pad_token_id,
                    **more,
                )
                texts.append(self._tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True))
                policy, spread = _read(self._model, whole, ids.shape[1])
                gaps.append(policy - self._parent_says(whole, ids.shape[1]))
                entropy.append(spread)
        self._model.train(training)
        return texts, gaps, entropy

    def _parent_says(self, whole: Any, start: int) -> float:
        """The parent's log-probability of the answer."""
        if hasattr(self._model, "disable_adapter"):
            with self._model.disable_adapter():
                return _read(self._model, whole, start)[0]
        if self._parent is None:
            pad = self._tokenizer.pad_token_id
            self._parent = load_model(self._job.parent, "causal", dtype="float32", pad=pad, seed=0).to(whole.device)
            self._parent.eval()
        return _read(self._parent, whole, start)[0]

    def finish(self) -> dict[str, Any]:
        """Put the best look's weights back, draw the picture; a summary for the metrics."""
        if not self.watch.looks:
            return {}
        if self._best.is_file() and self.watch.verdict().best != self.watch.looks[-1].step:
            kept = load_file(self._best)
            with torch.no_grad():
                for name, parameter in self._trained():
                    parameter.copy_(kept[name])
        with contextlib.suppress(MissingDependency):
            self.watch.draw(Path(self._job.out) / "watch.png")
        self._parent = None
        return {"watch": self.watch.summary()}


def _read(model: Any, whole: Any, start: int) -> tuple[float, float]:
    """Log-probability of the answer that begins at `start`, and the mean entropy of its tokens in nats."""
    logits = model(input_ids=whole, use_cache=False).logits[0, start - 1 : -1].float()
    logprobs = torch.log_softmax(logits, dim=-1)
    chosen = logprobs.gather(-1, whole[0, start:, None])
    return float(chosen.sum()), float(-(logprobs.exp() * logprobs).sum(-1).mean())
