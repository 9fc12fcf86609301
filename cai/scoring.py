"""What a training is rewarded for and watched by, from its block of the recipe; the models behind that."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cai import plugins
from cai.config import LoadedRecipe
from cai.engine import Engine, Generate
from cai.errors import InputError
from cai.processes import main_process
from cai.records import Prompt, content_hash
from cai.runs import RunFolder
from cai.store import Log
from cai.training.base import Job, Reward
from cai.training.rewards import Ask, Tools
from cai.training.watch import WatchConfig
from cai.yamlfile import Document, StrictModel, validate

REQUESTS = "requests"
"""What the names of the logs in a training's folder begin with."""
DEFAULT_REWARDS: tuple[Mapping[str, Any], ...] = ({"kind": "model"},)


def reward_of(given: Sequence[Mapping[str, Any]], tools: Tools) -> Reward:
    """One reward, or several combined by their weights.

    Raises:
        InputError: no such kind or option, or what it needs is not there.
    """
    from cai.training.rewards._combine import combined

    parts = []
    for number, one in enumerate(given or DEFAULT_REWARDS):
        options = dict(one)
        kind = str(options.pop("kind", ""))
        weight = float(options.pop("weight", 1.0))
        module = plugins.load("cai.training.rewards", kind)
        config = validate(Document(f"rewards.{number} ({kind})", options, {}, {}), module.Config)
        parts.append((module.build(config, tools), weight))
    return combined(parts)


def check_prompts(job: Job, watch: WatchConfig | None) -> None:
    """Rewards that can score answers to all that they will be asked about, so that none ends a training half way.

    Raises:
        InputError: one cannot.
    """
    watched = watch.taken(job.watched) if watch else ()
    asked: list[tuple[Any, Sequence[Prompt]]] = [(score, watched) for score in job.gold.values()]
    for reward, prompts in ((job.reward, (*job.prompts, *watched)), *asked):
        if hasattr(reward, "check"):
            reward.check([prompt.messages for prompt in prompts])


def check_gold(name: str, reward: Reward, gold: Mapping[str, Reward]) -> None:
    """Gold scores that are not what is maximised, nor a part of it: such a one cannot fall while the proxy rises.

    Raises:
        InputError: one is.
    """
    from cai.training.rewards._combine import measures

    for label, score in gold.items():
        if measures(score) & measures(reward):
            raise InputError(
                f"the gold score {label!r} is what is maximised: it would never stop the training",
                where=f"train.{name}.gold.{label}",
                mend="name another model or kind, one that is not among the rewards",
            )


def tools_of(
    loaded: LoadedRecipe, place: RunFolder, out: Path, opened: contextlib.ExitStack, *, reward_model: Path
) -> Tools:
    """What rewards are built with.

    Args:
        out: the training's folder, in which what it asks is kept.
        opened: closes what they open.
        reward_model: where the run's own would be.
    """
    logs = functools.cache(lambda: _logs(place, out, opened))
    askers: dict[str, Ask] = {}

    def ask(role: str) -> Ask:
        backend, config = _model(loaded, role)
        key = content_hash(backend, config.model_dump(mode="json"))  # roles that share a model load it once
        if key not in askers:
            askers[key] = _asker(loaded, role, logs, opened)
        return askers[key]

    return Tools(
        seed=loaded.recipe.seed,
        folder=loaded.folder,
        ask=ask,
        fingerprint=lambda role: _print_of(loaded, role),
        reward_model=reward_model if (reward_model / "config.json").is_file() else None,
    )


def _model(loaded: LoadedRecipe, role: str) -> tuple[str, StrictModel]:
    if role not in loaded.models:
        raise InputError(f"no model {role!r}", where="models", mend=f"there are: {', '.join(loaded.models)}")
    return loaded.models[role]


def _print_of(loaded: LoadedRecipe, role: str) -> str:
    backend, config = _model(loaded, role)
    return str(plugins.load("cai.backends", backend).fingerprint(config))


Logs = tuple[Log, tuple[Log, ...]]


def _logs(place: RunFolder, out: Path, opened: contextlib.ExitStack) -> Logs:
    """The log of all that a training's rewards ask, in the folder that it holds; and what is only read beside it: the
    one that all trainings of a run once wrote to.
    """
    # A log is written by one process: what the others of a launch ask goes into logs of their own.
    name = f"{REQUESTS}.jsonl" if main_process() else f"{REQUESTS}-{os.environ['RANK']}.jsonl"
    shared = place.path / "train" / name
    older = (opened.enter_context(Log(shared, key="key", read_only=True)),) if shared.is_file() else ()
    return opened.enter_context(Log(out / name, key="key")), older


@contextlib.contextmanager
def _draws_kept() -> Iterator[None]:
    """Random numbers go on behind it where they were before.

    vLLM seeds Python's, numpy's and torch's while it loads, which happens at another step where a training is resumed.
    """
    import numpy
    import torch

    python, legacy = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(legacy)


def _asker(loaded: LoadedRecipe, role: str, logs: Callable[[], Logs], opened: contextlib.ExitStack) -> Ask:
    """Runs coroutines with a model behind every role; loaded with the first question, its answers kept in a log.

    Args:
        logs: opens them, see `_logs`.
        opened: closes the model.
    """
    name, config = _model(loaded, role)
    kept: dict[str, Any] = {}

    def ask(coroutines: Sequence[Callable[[Generate], Any]]) -> list[Any]:
        if not kept:
            kept["loop"] = asyncio.new_event_loop()
            opened.callback(kept["loop"].close)
            with _draws_kept():
                kept["backend"] = plugins.load("cai.backends", name).build(config, seed=loaded.recipe.seed)
            opened.callback(lambda: kept["loop"].run_until_complete(kept["backend"].close()))
        log, older = logs()
        engine = Engine(dict.fromkeys(loaded.recipe.names, kept["backend"]), log, reuse=older)

        async def together() -> list[Any]:
            return list(await asyncio.gather(*(one(engine.generate) for one in coroutines)))

        found: list[Any] = kept["loop"].run_until_complete(together())
        return found

    return ask
