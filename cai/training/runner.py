"""Running a TRL trainer so that nothing is lost: resuming, metrics, progress, stopping, and errors in one line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from cai.errors import InputError, MissingDependency
from cai.modelfolder import fingerprint
from cai.processes import main_process, processes
from cai.records import content_hash
from cai.store import encode, read_rows, replacing, write_json
from cai.training.base import Job, TrainingError
from cai.training.passthrough import bound, check_block
from cai.training.stop import Stop
from cai.training.watch import forget_looks
from cai.yamlfile import StrictModel, nearest

INPUTS = "inputs.json"


class _Ended(Exception):
    """There is nothing left to train: weights are loaded, and no step is to be made."""


def arguments(kind: type[Any], job: Job, settings: StrictModel, defaults: Mapping[str, Any]) -> Any:
    """TRL's own config object: our defaults, then the recipe's `trl:` block as it is.

    Raises:
        InputError: a key that TRL does not have (names the nearest), one that is ours or a setting's to say or would
            be without effect, a value TRL refuses, no such tracker, another precision than the launcher's, or several
            GPUs for one process.
        MissingDependency: a tracker's package is not installed.
    """
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    for key in job.trl:
        if key not in known:
            raise InputError(
                f"{kind.__name__} has no {key!r}{nearest(key, sorted(known))}", where=f"train.{job.name}.trl"
            )
    check_block(job.trl, job.name, type(settings).model_fields)
    _check_precision(job.name, getattr(settings, "dtype", "float32"))
    values = {
        "output_dir": str(job.steps),
        "seed": job.seed,
        "report_to": "none",
        "logging_steps": 1,
        "logging_strategy": "steps",
        "logging_nan_inf_filter": False,  # it would tell the mean of the steps before in place of what is no number
        "save_strategy": "steps",
        "save_total_limit": 2,
        "disable_tqdm": True,
        "eval_strategy": "no",
        "remove_unused_columns": True,
        **defaults,
        **job.trl,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = kind(**{key: value for key, value in values.items() if key in known})
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{kind.__name__} refuses its settings: {error}", where=f"train.{job.name}.trl") from error
    if made.n_gpu > 1:  # transformers would take them all by nn.DataParallel, which TRL refuses once all is loaded
        raise InputError(
            f"one process sees {made.n_gpu} GPUs",
            mend=f"`accelerate launch -m cai train {job.name} ...` for all of them, or set CUDA_VISIBLE_DEVICES=0",
        )
    _check_trackers(job.name, made.report_to)
    return made


def _check_precision(name: str, dtype: str) -> None:
    """accelerate takes its launcher's word where the recipe says float32, and DeepSpeed ends once all is loaded.

    Raises:
        InputError: the launcher names another precision than the recipe.
    """
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher not in ("no", "bf16" if dtype == "bfloat16" else "no"):
        raise InputError(
            f"dtype is {dtype}, and the launcher's mixed_precision is {launcher}",
            where=f"train.{name}.settings.dtype",
            mend="leave mixed_precision out of accelerate's configuration: dtype says it",
        )


def _check_trackers(name: str, trackers: Iterable[str]) -> None:
    """Make each tracker as transformers will, which does so only once data and model are loaded.

    Raises:
        InputError: transformers has no such tracker.
        MissingDependency: what it needs is not installed.
    """
    from transformers.integrations import get_reporting_integration_callbacks

    where = f"train.{name}.trl.report_to"
    for tracker in trackers:
        try:
            for made in get_reporting_integration_callbacks([tracker]):
                made()
        except ValueError as error:
            raise InputError(str(error), where=where) from error
        except (RuntimeError, ImportError) as error:
            raise MissingDependency(f"the tracker {tracker} cannot be used: {error}", where=where) from error


def begin(job: Job, settings: Mapping[str, Any], digest: str) -> Path | None:
    """The checkpoint to resume from, or None for a training that begins.

    Called once everything that can be known is checked: what is refused before has begun nothing.

    Raises:
        InputError: steps of a training on other inputs are here; names what differs.
    """
    now = {
        "settings": dict(settings),
        "trl": dict(job.trl),
        "data": digest,
        "parent": fingerprint(job.parent),
        "seed": job.seed,
        "process count": processes(),  # `batch` is each one's, and so are random numbers
    }
    path = job.steps / INPUTS
    found = sorted(job.steps.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for folder in reversed(found):
        if not _complete(folder):
            if main_process():
                shutil.rmtree(folder, ignore_errors=True)
            continue
        # What an older file does not tell, it does not bind.
        before = {**now, **(json.loads(path.read_text("utf-8")) if path.is_file() else {})}
        differing = [key for key in now if _bound(now[key]) != _bound(before[key])]
        if differing:
            raise InputError(
                f"a training with another {', '.join(differing)} was begun here",
                where=str(job.out),
                mend="--fresh begins anew, --out trains beside it",
            )
        return folder
    if main_process():
        write_json(path, now)
        forget_looks(job.out)
    return None


def _complete(folder: Path) -> bool:
    """Whether a checkpoint was written to its end: transformers writes this file last, though not in one piece."""
    try:
        json.loads((folder / "trainer_state.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _bound(value: Any) -> str:
    return content_hash(bound(value) if isinstance(value, dict) else value)


def run(job: Job, trainer: Any, resume: Path | None, *, watch: Any = None) -> dict[str, Any]:
    """Train to the end, or to where the user or the watch stops it; the last figures.

    Raises:
        KeyboardInterrupt: the user stopped it; the same command goes on.
        TrainingError: the loss is not a number, or no step was made.
    """
    if resume is not None:
        job.say(f"resumes from step {resume.name.split('-')[1]}")
    if main_process():
        _forget_after(job.metrics, int(resume.name.split("-")[1]) if resume is not None else -1)
    from transformers.trainer_callback import PrinterCallback

    with Stop(job.say) as stop, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and transformers' own deprecations
        trainer.remove_callback(PrinterCallback)  # stdout carries the answer alone
        told = _callback(job, stop, trainer.accelerator, watch)
        trainer.add_callback(told)
        trainer.training_step = _summing(trainer.training_step, told.losses)
        if watch is not None:
            trainer.add_callback(watch)
        figures: dict[str, Any] = {}
        try:
            figures = trainer.train(resume_from_checkpoint=str(resume) if resume else None).metrics
        except _Ended:
            trainer.is_in_train = False
        if told.stopped and trainer.state.global_step < trainer.state.max_steps:
            raise KeyboardInterrupt
        if not trainer.state.global_step:  # transformers only logs that no batch came
            raise TrainingError(
                "no step was made: the data do not fill one batch",
                where=str(job.out),
                mend="lower batch and micro_batch, or give more data",
            )
    figures = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    return {"steps": trainer.state.global_step, **_last(job.metrics), **figures}


def steps_of(trainer: Any) -> int:
    """Steps of the optimiser that a training will have."""
    if trainer.args.max_steps > 0:
        return int(trainer.args.max_steps)
    batches = len(trainer.get_train_dataloader())
    a_pass: int = math.ceil(batches / trainer.args.gradient_accumulation_steps)
    return math.ceil(float(trainer.args.num_train_epochs) * a_pass)


def _last(path: Path) -> dict[str, Any]:
    """All that was told of the last step: its own figures, the training's and those of held-out data."""
    told: dict[str, Any] = {}
    for row in read_rows(path) if path.is_file() else ():
        told = {**(told if row["step"] == told.get("step") else {}), **row}
    return {key: value for key, value in told.items() if key not in ("step", "time")}


def _forget_after(path: Path, step: int) -> None:
    """Drop the figures of steps that will be made again."""
    if path.is_file():
        with replacing(path) as file:
            file.writelines(encode(row) for row in read_rows(path) if row["step"] <= step)


def _summing(step: Callable[..., Any], losses: list[Any]) -> Callable[..., Any]:
    """A trainer's forward and backward pass, its loss added to `losses`."""

    def made(*given: Any, **named: Any) -> Any:
        loss = step(*given, **named)
        losses.append(loss)
        return loss

    return made


def _callback(job: Job, stop: Stop, accelerator: Any, watch: Any) -> Any:
    from transformers import TrainerCallback

    from cai.training.ppo.rollout import Processes

    processes = Processes(accelerator)

    class Told(TrainerCallback):  # type: ignore[misc]
        """Metrics to a file, progress, an end on Ctrl-C, and an error where the loss is not a number.

        That is looked for in every step, however rarely it is logged: weights behind it must not be kept.

        Attributes:
            losses: of the step that is made, in parts, this process's own.
        """

        stopped = False  # by the user; every process says the same

        def __init__(self) -> None:
            self.losses: list[Any] = []
            self._norm = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # transformers would make another step first. What the watch ended stays ended, as does what is finished.
            ended = state.global_step >= state.max_steps
            if watch is not None and state.global_step and watch.watch.looks:
                ended = ended or watch.watch.verdict().stop
            if processes.summed([float(ended)])[0] > 0:
                raise _Ended
            job.progress.start(state.max_steps, state.global_step, what=job.name, unit="steps")

        def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
            # Of which pass it is accelerate tells a sampler that is not its own only until several processes resume
            # within one: the loader that skips what they have seen hides it too deep.
            train_dataloader.set_epoch(int(state.epoch))

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            job.progress.finish()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs:
                return
            for name in ("loss", "grad_norm"):
                self._refuse(name, logs.get(name), state.global_step)
            if not state.is_world_process_zero:  # but the error, and the end, are every process's
                return
            kept = {key: value for key, value in logs.items() if isinstance(value, int | float)}
            with job.metrics.open("ab") as file:
                file.write(encode({"step": state.global_step, "time": round(time.time(), 3), **kept}))
            if "loss" in logs:
                job.progress.show(state.global_step, f"loss {logs['loss']:.4f}")

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
            # Of what lies in this process, clipped already; after the step the gradients are gone. The log's own norm
            # comes only when the watch has looked.
            self._norm = _norm_of(p.grad for group in optimizer.param_groups for p in group["params"])

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            # A signal reaches the processes at different steps, or only one of them; they end together or hang.
            asked, loss, norm = processes.summed([float(stop.asked), float(sum(self.losses)), self._norm])
            self.losses.clear()
            self._refuse("loss", loss, state.global_step)
            self._refuse("grad_norm", norm, state.global_step)
            self.stopped = asked > 0
            if self.stopped:
                control.should_save = True
                control.should_training_stop = True
            return control

        def _refuse(self, name: str, value: Any, step: int) -> None:
            if isinstance(value, float) and not math.isfinite(value):
                raise TrainingError(
                    f"the {name} is {value} at step {step}",
                    where=str(job.out),
                    mend="lower learning_rate, or train in float32",
                )

    return Told()


def _norm_of(gradients: Iterable[Any]) -> float:
    """The norm of gradients, of sharded ones of the shards here; 0 where there are none."""
    import torch

    here = [g.to_local() if hasattr(g, "to_local") else g for g in gradients if g is not None]
    return float(torch.nn.utils.get_total_norm(here)) if here else 0.0
