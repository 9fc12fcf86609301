"""`cai train`: from a recipe to a training job; the only place that turns one into the other.

What an algorithm trains on by default is what this run made: `sft` the policy on the run's SFT data; `rm` and `dpo`
what `sft` made, on the run's preferences (merged with people's labels where `cai merge` was run); `ppo`, `grpo` and
`rloo` what `sft` made, with the reward of this run's `rm`, on the prompts that are not held out.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from cai import runs
from cai.config import LoadedRecipe, load_recipe
from cai.constitution.load import load_constitution
from cai.errors import InputError
from cai.merging import TRAINED_ON, training_data
from cai.people import events_of
from cai.pipeline.begin import read_prompts
from cai.processes import launched, leave_processes, main_process
from cai.progress import Reporter
from cai.recipe import PairsFrom, TrainConfig
from cai.records import Prompt
from cai.runs import RunFolder
from cai.scoring import DEFAULT_REWARDS, REQUESTS, check_gold, check_prompts, reward_of, tools_of
from cai.stages.export import split_of
from cai.store import Lock, write_json
from cai.training import algorithms
from cai.training.base import Job, Outcome
from cai.training.data import PairSource, conversations_digest, read_conversations, read_pairs, with_system
from cai.training.lineage import read_lineage
from cai.training.runner import INPUTS
from cai.training.stop import memory_told
from cai.yamlfile import Document, StrictModel, validate

ON_SFT = ("rm", "dpo", "ppo", "grpo", "rloo")
RL = ("ppo", "grpo", "rloo")
READ_BY = {
    "data": ("sft",),
    "pairs": ("rm", "dpo"),
    "rewards": RL,
    "gold": ("dpo", *RL),
    "trl": ("sft", "rm", "dpo", "grpo", "rloo"),
}
"""Which algorithms read a part of their block that not all do."""


@dataclass(frozen=True)
class Prepared:
    """An algorithm with its settings and job, nothing loaded.

    Attributes:
        opened: closes what rewards have opened on the way: models, their log.
    """

    algorithm: Any
    settings: StrictModel
    job: Job
    opened: contextlib.ExitStack


def settings_of(name: str, given: Mapping[str, Any], where: str) -> StrictModel:
    """An algorithm's validated settings.

    Raises:
        InputError: no such algorithm; InvalidFile: a setting it has not got (names the nearest) or a wrong value.
    """
    algorithm = algorithms.load(name)
    found: StrictModel = validate(Document(where, dict(given), {}, {}), algorithm.Config)
    return found


def run_folder(loaded: LoadedRecipe, given: Path | None) -> Path:
    """Where the run is."""
    return given or runs.folder_of(loaded.path, loaded.recipe.name)


def prepare(name: str, loaded: LoadedRecipe, folder: Path, report: Reporter, *, out: Path | None = None) -> Prepared:
    """The job of an algorithm, everything that can be known before loading checked.

    Raises:
        InputError: no such algorithm or setting, what it is to be trained on is not there, or a gold score is what is
        maximised.
    """
    algorithm = algorithms.load(name)
    block = loaded.recipe.train.get(name, TrainConfig())
    _check_read(name, block)
    settings = settings_of(name, block.settings, f"train.{name}.settings")
    place = RunFolder(folder)
    out = out or place.path / "train" / name
    say = report.say if main_process() else _silent
    made = load_recipe(place.recipe) if place.recipe.is_file() else loaded
    if differing := runs.differences(_data_options(made), _data_options(loaded)):
        say(f"the run's data were made by other options, and these play no part: {', '.join(differing)}")
    system = _system(made, place)
    watched, training = _prompts(made, place, system)
    opened = contextlib.ExitStack()
    tools = tools_of(loaded, place, out, opened, reward_model=_checkpoint(place, "rm"))
    reward = reward_of(block.rewards, tools) if name in RL else None
    gold = {label: reward_of((given,), tools) for label, given in block.gold.items()}
    if reward is not None:
        check_gold(name, reward, gold)
    parent = _parent(name, block, loaded, place)
    say(f"trains from {parent}")
    for before, used in (("sft", parent), ("rm", tools.reward_model if _is_asked(block, name) else None)):
        if used is not None and used == _checkpoint(place, before) and main_process():
            _check_age(before, used, loaded, place, system, say)
    job = Job(
        name=name,
        out=out,
        parent=parent,
        seed=loaded.recipe.seed,
        conversations=_data(block, loaded, place) if name == "sft" else None,
        pairs=_pairs(block, loaded, place, system, say) if name in ("rm", "dpo") else (),
        prompts=training if name in RL else (),
        watched=watched,
        reward=reward,
        gold=gold,
        lineage=_lineage(loaded, place),
        trl=block.trl,
        say=say,
        **({"progress": report} if main_process() else {}),
    )
    check_prompts(job, getattr(settings, "watch", None))
    return Prepared(algorithm, settings, job, opened)


def train(prepared: Prepared, *, fresh: bool = False) -> Outcome:
    """Train; on a folder that holds part of the same training, what is left of it.

    Args:
        fresh: set an earlier training in the folder aside and begin anew; what its rewards have asked stays known.

    Raises:
        CaiError: see the algorithm, or memory does not suffice; what was finished is kept.
        KeyboardInterrupt: stopped, resumable.
    """
    job = prepared.job
    with _hold(job.out), prepared.opened:
        if fresh:
            _set_aside(job.out)
        job.steps.mkdir(parents=True, exist_ok=True)
        with memory_told():  # also while models are loaded, references read and held-out rows scored
            outcome: Outcome = prepared.algorithm.train(job, prepared.settings)
        if main_process():
            write_json(job.out / "metrics.json", outcome.metrics)
        leave_processes()
        return outcome


def _check_read(name: str, block: TrainConfig) -> None:
    """A block in which nothing is said in vain.

    Raises:
        InputError: the algorithm does not read a part of it.
    """
    for part, readers in READ_BY.items():
        if getattr(block, part) and name not in readers:
            raise InputError(
                f"{name} does not read {part}",
                where=f"train.{name}.{part}",
                mend=f"it is for {', '.join(readers)}; see `cai train {name} --settings`",
            )


def _silent(text: str) -> None:
    """The other processes of a launch say nothing."""


@contextlib.contextmanager
def _hold(folder: Path) -> Iterator[None]:
    if not main_process():  # the first process holds it for all
        yield
        return
    with Lock(folder):
        yield


def _set_aside(folder: Path) -> None:
    if main_process() and folder.exists():
        _move_into_history(folder)
    if launched():  # no process looks into the folder before it is empty
        from accelerate import PartialState

        PartialState(timeout=timedelta(minutes=30)).wait_for_everyone()


def _move_into_history(folder: Path) -> None:
    numbers = [int(path.name) for path in (folder / "history").glob("*") if path.name.isdigit()]
    target = folder / "history" / f"{max(numbers, default=0) + 1:03d}"
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if path.name not in ("history", ".lock") and not path.name.startswith(REQUESTS):
            shutil.move(str(path), target / path.name)


def _data_options(loaded: LoadedRecipe) -> dict[str, Any]:
    """What of a recipe decides what a run's data are, however it is trained on them."""
    cards = {"license", "prompt_licenses", "language", "title", "formats"}
    told = loaded.recipe.model_dump(
        mode="json",
        include={"system_prompt", "revise", "sft", "sample", "judge", "preferences"},
        # The run's own recipe has a calibration's path in place of its name.
        exclude={"sft": cards, "preferences": {"formats", "calibration"}},
    )
    if loaded.judge is not None:
        told["judge"]["options"] = loaded.judge.model_dump(mode="json")
    return told


def _system(made: LoadedRecipe, place: RunFolder) -> str:
    """The system prompt that stands in the run's SFT data, and so belongs before all that is trained on; "" for none.

    Args:
        made: the recipe that the data were made by.
    """
    if not made.recipe.sft.system_prompt or not place.constitution.is_file():
        return ""
    return load_constitution(place.path).system_prompt.strip()


def _prompts(made: LoadedRecipe, place: RunFolder, system: str) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The run's prompts: held out, and to be trained on; split as the run's data are.

    Args:
        made: the recipe that the data were made by. Another's seed or share would put what was trained on among the
            watched.
        system: put before each of them.
    """
    if not place.prompts.is_file():
        return (), ()
    options = made.recipe
    split: dict[str, list[Prompt]] = {"train": [], "test": []}
    for prompt in read_prompts(place):
        messages = with_system(prompt.messages, system)
        asked = Prompt.make(messages, tags=prompt.tags, source=prompt.source, overrides=prompt.overrides)
        split[split_of(prompt, options.sft.test_fraction, options.seed)].append(asked)
    return tuple(split["test"]), tuple(split["train"])


def _checkpoint(place: RunFolder, name: str) -> Path:
    """What this run's training of this name leaves, unless it is told another folder."""
    return place.path / "train" / name / "checkpoint"


def _parent(name: str, block: TrainConfig, loaded: LoadedRecipe, place: RunFolder) -> Path:
    if block.parent:
        return loaded.resolve(block.parent)
    before = _checkpoint(place, "sft")
    if name in ON_SFT:
        if (before / "config.json").is_file():
            return before
        if (before.parent / "steps" / INPUTS).is_file() or (before.parent / "history").is_dir():
            raise InputError(
                "sft was begun and has not come to its end",
                where=str(before.parent),
                mend=f"run `cai train sft` to its end, or say in train.{name}.parent what {name} is to be trained from",
            )
    found = loaded.models.get("policy")
    model = getattr(found[1], "model", "") if found else ""
    if found is None or found[0] != "vllm" or not model:
        raise InputError(
            f"what {name} is to be trained from is not said",
            where=f"train.{name}.parent",
            mend="name a folder: the policy is not a model on this machine",
        )
    return loaded.resolve(model)


def _check_age(
    name: str, made: Path, loaded: LoadedRecipe, place: RunFolder, system: str, say: Callable[[str], None]
) -> None:
    """Tell where what came before was trained on other data than it would be now: the run may have been made anew."""
    block = loaded.recipe.train.get(name, TrainConfig())
    told = ((read_lineage(made) or {}).get("data") or {}).get("digest")
    try:
        if name == "sft":
            now = conversations_digest(read_conversations(_data(block, loaded, place)))
        else:
            settings: Any = settings_of(name, block.settings, f"train.{name}.settings")
            now = read_pairs(_pairs(block, loaded, place, system, _silent), hard=not settings.soft).digest
    except InputError as error:
        say(f"whether {made} was trained on the present data cannot be told: {error.what}")
        return
    if told != now:
        say(f"{made} was trained on other data than there are now; `cai train {name} --fresh` trains it anew")


def _is_asked(block: TrainConfig, name: str) -> bool:
    """Whether a score is that of this run's own reward model."""
    scores = (*(block.rewards or DEFAULT_REWARDS), *block.gold.values()) if name in RL else block.gold.values()
    return any(score.get("kind") == "model" and not score.get("path") for score in scores)


def _data(block: TrainConfig, loaded: LoadedRecipe, place: RunFolder) -> Path:
    return loaded.resolve(block.data) if block.data else place.sft


def _pairs(
    block: TrainConfig, loaded: LoadedRecipe, place: RunFolder, system: str, say: Callable[[str], None]
) -> tuple[PairSource, ...]:
    """The mixture; the run's own part of it behind its system prompt, if the SFT data have that."""
    found: list[PairSource] = []
    for given in block.pairs or (PairsFrom(),):
        path = loaded.resolve(given.path) if given.path else training_data(place, say)
        if not given.path and path.parent != place.merged_data and (labels := len(events_of(place))):
            say(f"{labels} labels of people play no part; `cai merge {place.path}` takes them in")
        name = given.name or (path.parent.name if path.name == TRAINED_ON else path.name)
        while any(name == other.name for other in found):
            name += "+"
        found.append(
            PairSource(
                name,
                path,
                given.axes,
                given.sources,
                given.weight,
                system="" if given.path else system,
                own=not given.path,
            )
        )
    return tuple(found)


def _lineage(loaded: LoadedRecipe, place: RunFolder) -> dict[str, Any]:
    told: dict[str, Any] = {"run": loaded.recipe.name}
    if place.constitution.is_file():
        constitution = load_constitution(place.path)
        told["constitution"] = constitution.name
        told["constitution_hash"] = constitution.hash
    manifest = runs.RunFolder(place.path).read_manifest()
    if manifest is not None:
        told["inputs"] = manifest.get("inputs", {})
    if loaded.recipe.sft.license:
        told["license"] = loaded.recipe.sft.license
    return told
