"""A training put together from a job: models, sampler, loop, watch; and what is left at its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from cai import plugins
from cai.errors import InputError, MissingDependency
from cai.modelfolder import fingerprint
from cai.processes import main_process
from cai.records import content_hash
from cai.store import read_rows
from cai.training import lineage, models
from cai.training.base import Job
from cai.training.ppo import state
from cai.training.ppo.config import Config
from cai.training.ppo.loop import Loop
from cai.training.ppo.parts import Parts
from cai.training.ppo.rollout import Collector, Encoded, Processes, encode, number
from cai.training.ppo.trackers import check_trackers, flat
from cai.training.rollouts import Drawing, Sampler
from cai.training.watch import BEST, Watch, forget_looks, kept_step
from cai.yamlfile import Document, validate


@dataclass
class Session:
    """What `train` works with."""

    job: Job
    config: Config
    parts: Parts
    loop: Loop
    tokenizer: Any
    prompts: tuple[Encoded, ...]
    watched: tuple[Encoded, ...]
    watch: Watch
    processes: Processes
    report: Callable[[dict[str, Any], int], None]

    def updates(self) -> Iterator[dict[str, Any]]:
        """The updates still to be made."""
        assert self.job.reward is not None
        progress = self.job.progress
        progress.start(self.config.updates, self.loop.done, what="ppo", unit="updates")
        try:
            for figures in self.loop.run(self.prompts, self.job.reward):
                self.report(flat(figures), self.loop.done)
                told = f"reward {figures['reward']:.3f}, KL {figures['kl']:.2f} nats"
                progress.show(self.loop.done, f"{told}, {figures['tokens_per_second']:.0f} tok/s")
                yield figures
        finally:
            progress.finish()

    def look_if_due(self) -> bool:
        """Take a look where one is due; whether training should end with it. The best look's weights are kept."""
        step = self.loop.done
        if not self.agreed(self.processes.main and self.watch.due(step)):
            if self.processes.main and self.watch.best_by_gold() == step != kept_step(self.job.out / BEST):
                self._keep(step)  # a kill came between the look and its weights
            return False
        collector = self.loop.collector
        drawing = replace(
            collector.drawing, temperature=self.config.watch.temperature, max_tokens=self.config.watch.max_tokens
        )
        seeds = [number("watch", self.job.seed, row) for row in range(len(self.watched))]
        samples = collector.write(self.watched, seeds, drawing)
        with self.parts.at(drawing.temperature):  # that they were drawn at: else the mean would not be a KL
            figures = collector.read(samples)
        ended = False
        if self.processes.main:
            gaps = [
                float((figures["old"][row] - figures["reference"][row])[: len(sample.answer)].sum())
                for row, sample in enumerate(samples)
            ]
            entropy = [float(figures["entropy"][r][: len(s.answer)].mean()) for r, s in enumerate(samples)]
            answers = [sample.text for sample in samples]
            verdict = self.watch.look(step, answers, kl=sum(gaps) / len(gaps), entropy=entropy)
            if self.watch.best_by_gold() == step:
                self._keep(step)
            if verdict.stop:
                self.job.say(f"stops after update {step}: {verdict.why}; the checkpoint is that of {verdict.best}")
            ended = verdict.stop
        return self.agreed(ended)

    def ended(self) -> bool:
        """Whether the looks so far, of an earlier call too, say that training should end."""
        return self.agreed(self.processes.main and bool(self.watch.looks) and self.watch.verdict().stop)

    def _keep(self, step: int) -> None:
        from safetensors.torch import save_file

        temporary = self.job.out / f".{BEST}.new"
        save_file(self.parts.trained_state(), temporary, metadata={"step": str(step)})
        temporary.replace(self.job.out / BEST)

    def agreed(self, asked: bool) -> bool:
        """Whether any process says so."""
        return self.processes.summed([float(asked)])[0] > 0

    def finish(self) -> dict[str, Any]:
        """Write the checkpoint, of the best look where a gold score says which that is; its figures, or the last."""
        told: dict[str, Any] = {}
        if self.processes.main:
            step = self._take_best()
            figures: dict[str, Any] = {"update": step}
            figures |= next((row for row in read_rows(self.job.metrics) if row["update"] == step), {})
            told = {**figures, **({"watch": self.watch.summary()} if self.watch.looks else {})}
            models.save(self.parts.merged(), self.tokenizer, self.job.checkpoint, parent=self.job.parent)
            lineage.write_lineage(
                self.job.checkpoint,
                algorithm="ppo",
                parent=self.job.parent,
                given=self.job.lineage,
                settings=self.config.model_dump(mode="json"),
                data={"digest": content_hash([p.id for p in self.job.prompts]), "prompts": len(self.job.prompts)},
                metrics=figures,
                rewards=lineage.rewards_of(self.job),
                step=step,
            )
            if self.watch.looks:
                try:
                    self.watch.draw(self.job.out / "watch.png")
                except MissingDependency as error:
                    self.job.say(f"no plot: {error}")
        self.processes.wait()
        return told

    def _take_best(self) -> int:
        """Load the weights of the best look by gold, if there is one; the update that the weights are of."""
        from safetensors.torch import load_file

        path = self.job.out / BEST
        best = self.watch.best_by_gold()
        if best is None or best != kept_step(path):
            return self.loop.done
        self.parts.load_trained(load_file(path))
        return best


@contextlib.contextmanager
def open_session(job: Job, config: Config) -> Iterator[Session]:
    """Load everything; what can be checked without the model is checked before.

    Raises:
        InputError: no model or chat template in the parent's folder, a prompt that is too long, too few rows for the
            processes, or processes that shard.
    """
    from accelerate import Accelerator

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(variable, "false").lower() in ("1", "true"):
            raise InputError(
                f"ppo does not run under {name}: its models are one module, some of it trained and some not",
                mend="launch it with distributed_type: MULTI_GPU",
            )
    rollouts = plugins.load("cai.training.rollouts", config.rollouts)
    options = validate(Document("rollout_options", dict(config.rollout_options), {}, {}), rollouts.Config)
    tokenizer = models.load_tokenizer(job.parent)
    if not tokenizer.chat_template:
        raise InputError("the tokenizer has no chat template", where=str(job.parent), mend="train sft first")
    prompts = encode(job.prompts, tokenizer, longest=config.max_prompt_tokens)
    if main_process() and state.newest(job.steps) is None:
        forget_looks(job.out)
    watch = Watch(
        job.out, config.watch, job.watched, total=config.updates, proxy=job.reward, gold=job.gold, say=job.say
    )
    watched = encode(watch.prompts, tokenizer, longest=config.max_prompt_tokens) if watch.on else ()
    for some, new in ((prompts, config.max_new_tokens), (watched, config.watch.max_tokens)):
        longest = max((len(one.ids) for one in some), default=0)
        models.check_room(job.parent, longest, new, context=getattr(options, "context", None))
    check_trackers(config.report_to, job.out)
    accelerator = Accelerator(
        mixed_precision="bf16" if config.dtype == "bfloat16" else "no",
        log_with=list(config.report_to) or None,
        project_dir=str(job.out),
    )
    processes = Processes(accelerator)
    if config.batch // config.minibatches < processes.count:
        raise InputError(
            f"minibatches of {config.batch // config.minibatches} answers for {processes.count} processes",
            mend="raise batch or lower minibatches",
        )
    pad = tokenizer.pad_token_id
    dtype = models.held_in(config.dtype, adapters=config.lora is not None)
    model = models.load_model(job.parent, "causal", dtype=dtype, pad=pad, seed=job.seed)
    parts = Parts(
        model.to(accelerator.device),
        lora=config.lora,
        shared=config.value == "shared",
        temperature=config.temperature,
        checkpointing=config.gradient_checkpointing,
    )
    parts.entropy_trained = config.entropy_coefficient > 0

    @contextlib.contextmanager
    def writing() -> Iterator[None]:
        # In the arithmetic that the policy is trained in: else another policy would write than the one that learns.
        with parts.writing(), accelerator.autocast():
            yield

    sampler: Sampler = rollouts.build(
        options, model=model, folder=job.parent, seed=job.seed, active=writing, processes=processes.count
    )
    try:
        drawing = Drawing(config.max_new_tokens, config.temperature, ends_of(model, tokenizer), pad)
        loop = Loop(
            parts,
            accelerator.prepare_model(parts),
            Collector(parts, sampler, tokenizer, config, drawing=drawing, processes=processes),
            config,
            folder=job.steps,
            metrics=job.metrics,
            seed=job.seed,
            inputs=inputs_of(job, config),
            say=job.say,
        )
        accelerator.init_trackers("cai-ppo", config=flat(config.model_dump(mode="json")))
        yield Session(job, config, parts, loop, tokenizer, prompts, watched, watch, processes, accelerator.log)
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        sampler.close()


def ends_of(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end an answer: the tokenizer's, and those of the model's generation config."""
    told = getattr(model.generation_config, "eos_token_id", None)
    found = [*(told if isinstance(told, list) else [told]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(token) for token in found if token is not None))


def inputs_of(job: Job, config: Config) -> dict[str, str]:
    """Digests of all that a training's curve depends on. How often to save or look is not among it, nor what moves
    memory.
    """
    left_out = {"save_every", "watch", "trust_reward_model", "logprob_tolerance", "ratio_tolerance", "report_to"}
    left_out |= {"micro_batch", "gradient_checkpointing"}
    if config.schedule == "constant":
        left_out.add("updates")  # so a finished training can go on for longer
    reward = getattr(job.reward, "id", getattr(job.reward, "name", ""))
    found = {
        "settings": config.model_dump(mode="json", exclude=left_out),
        "parent": fingerprint(job.parent),
        "seed": job.seed,
        "prompts": [prompt.id for prompt in job.prompts],
        "reward": reward,
    }
    return {name: content_hash(value) for name, value in found.items()}
