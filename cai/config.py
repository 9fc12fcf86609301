"""The recipe: one YAML file that says everything about a run. Validated before any model loads.

Paths in a recipe are relative to the recipe's own folder. A configuration never enters the stages: `cai.pipeline`
flattens it to plain parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cai import plugins, yamlfile
from cai.constitution.model import Ident
from cai.errors import InputError
from cai.yamlfile import Document, InvalidFile, Loc, Problem, StrictModel

ROLES = ("policy", "critic", "reviser")


class PromptSource(StrictModel):
    """One file or data set of prompts."""

    path: str = Field(description="File or folder.")
    format: str = Field("auto", description="`cai prompts import --help` lists them.")
    fields: tuple[str, ...] = Field((), description="Keys or columns that hold the prompt, joined by a blank line.")
    turns: Literal["first", "all"] | None = Field(None, description="first: only up to the first user turn.")
    tags: tuple[str, ...] = Field((), description="Tags added to every prompt of this source.")
    limit: int | None = Field(None, ge=1, description="Take only the first so many.")
    source: str = Field("", description="What rows name as their source; by default `path` as written here.")

    @property
    def label(self) -> str:
        """What stands for the file in the rows' `source`; an absolute path leaves its folders out."""
        return self.source or (Path(self.path).name if Path(self.path).is_absolute() else self.path)


class SamplingConfig(StrictModel):
    """How tokens of one step are drawn."""

    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0 switches the filter off.")


class ReviseConfig(StrictModel):
    """The critique-and-revise loop (Bai et al. 2022, arXiv 2212.08073, section 3)."""

    rounds: int = Field(2, ge=0, le=16, description="Critique-revision pairs a prompt; the paper has 4.")
    principles_per_critique: int = Field(1, ge=1, description="Principles asked together in one critique.")
    critique: bool = Field(True, description="false: revise at once, the paper's no-critique ablation.")
    style: Literal["chat", "base"] = Field(
        "chat", description="base: plain transcripts, for models without chat training."
    )
    few_shot: int | None = Field(None, ge=0, description="Worked examples shown; all of the constitution's by default.")
    unrevised_tags: tuple[str, ...] = Field(
        ("helpful",), description="Prompts with one of these tags are only answered."
    )
    unrevised_samples: int = Field(1, ge=1, description="Answers per such prompt; the paper has 2.")
    retries: int = Field(1, ge=0, description="How often a faulty step is drawn again before it is given up.")
    draft: SamplingConfig = Field(default_factory=SamplingConfig)
    critic: SamplingConfig = Field(default_factory=SamplingConfig)
    revision: SamplingConfig = Field(default_factory=SamplingConfig)


class SftConfig(StrictModel):
    """The SFT data set."""

    revisions: Literal["all", "last"] = Field(
        "all", description="Train on the revisions of all rounds, as the paper, or the last."
    )
    include_unrevised: bool = Field(True, description="Mix in the answers to prompts that are not revised.")
    test_fraction: float = Field(0.05, ge=0, lt=1, description="Share of prompts held out, split by prompt.")
    system_prompt: bool = Field(False, description="Put the constitution's system prompt into the rows.")
    license: str = Field("", description="Licence of the data set, for its card (a Hugging Face licence id).")
    prompt_licenses: tuple[str, ...] = Field((), description="Sources and licences of the prompts, for the card.")
    language: tuple[str, ...] = Field(("en",), description="For the card.")
    title: str = Field("", description="For the card; the run's name by default.")


class RetryConfig(StrictModel):
    """What happens when a server fails."""

    attempts: int = Field(
        6, ge=1, description="Tries a request, with exponential backoff, before its row is quarantined."
    )
    first_seconds: float = Field(0.5, gt=0)
    longest_seconds: float = Field(30.0, gt=0)
    give_up_after: int = Field(20, ge=1, description="Failed requests in a row after which the run stops, resumable.")


class Recipe(StrictModel):
    """One run."""

    name: Ident = Field(description="The run's folder is runs/<name>.")
    seed: int = Field(0, ge=0, description="Of principle draws, sampling and splits.")
    constitution: str = Field("default", description="Name, or path of a .yaml file.")
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    models: dict[str, Any] = Field(description="By role: policy, critic, reviser; a role may name another role.")
    rows_in_flight: int = Field(0, ge=0, description="Rows worked on at once; 0 chooses from the backends' seats.")
    reuse: tuple[str, ...] = Field((), description="Earlier runs whose completions are used where requests are equal.")
    retry: RetryConfig = Field(default_factory=RetryConfig)
    revise: ReviseConfig = Field(default_factory=ReviseConfig)
    sft: SftConfig = Field(default_factory=SftConfig)


class LoadedRecipe:
    """A recipe with its place, its models' configurations validated by their backends.

    Attributes:
        models: by role: (backend name, validated `Config` of that backend).
    """

    def __init__(self, recipe: Recipe, folder: Path, models: dict[str, tuple[str, StrictModel]]) -> None:
        self.recipe = recipe
        self.folder = folder
        self.models = models

    def resolve(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's folder."""
        return self.folder / Path(path).expanduser()

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default spelled out; can be run again from anywhere. Secrets are never part of it."""
        data: dict[str, Any] = self.recipe.model_dump(mode="json", exclude_none=True)
        data["models"] = {
            role: {"backend": name, **config.model_dump(mode="json")} for role, (name, config) in self.models.items()
        }
        for source, given in zip(data["prompts"], self.recipe.prompts, strict=True):
            source["source"] = given.label
            source["path"] = str(self.resolve(source["path"]).resolve())
        if Path(data["constitution"]).suffix in (".yaml", ".yml"):
            data["constitution"] = str(self.resolve(data["constitution"]).resolve())
        data["reuse"] = [str(self.resolve(run).resolve()) for run in data["reuse"]]
        return data


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe.

    Args:
        overrides: `key=value` texts; keys are dotted (`revise.rounds=4`), values are YAML.

    Raises:
        InvalidFile: every fault with its position; unknown keys name the nearest known one.
        InputError: a malformed override, or the file cannot be read.
    """
    loaded = yamlfile.load(path)
    document = _Document(loaded.file, loaded.data, loaded.marks, loaded.key_marks)
    for override in overrides:
        document.override(override)
    recipe = yamlfile.validate(document, Recipe)
    return LoadedRecipe(recipe, path.resolve().parent, _models(document, recipe, path.resolve().parent))


@dataclass(frozen=True)
class _Document(Document):
    """A recipe's file with what `--set` put over it, so that a fault names the one or the other.

    Attributes:
        overrides: by place, the option that put the value there.
    """

    overrides: dict[Loc, str] = dataclasses.field(default_factory=dict)

    def override(self, text: str) -> None:
        """Put the value of a text `key=value` into its place."""
        key, equals, value = text.partition("=")
        option = f"--set {key.strip()}"
        if not equals or not key.strip():
            raise InputError(f"not of the form key=value: {text!r}", where="--set")
        place = self.data
        *parents, last = key.strip().split(".")
        for parent in parents:
            if not isinstance(place, dict):
                raise InputError(f"{parent!r} is not below a mapping", where=option)
            place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise InputError(f"{last!r} is not below a mapping", where=option)
        place[last] = yamlfile.parse(value, option).data
        self.overrides[(*parents, last)] = option

    def problem(self, loc: Loc, message: str, *, key: bool = False) -> Problem:
        for length in range(len(loc), -1, -1):
            if loc[:length] in self.overrides:
                return Problem(self.overrides[loc[:length]], 1, 1, message)
        return super().problem(loc, message, key=key)

    def below(self, loc: Loc, data: Any) -> _Document:
        """`data`, the part of the recipe at `loc`, as a document of its own."""

        def cut(found: Mapping[Loc, Any]) -> dict[Loc, Any]:
            return {key[len(loc) :]: value for key, value in found.items() if key[: len(loc)] == loc}

        overrides = cut(self.overrides)
        overrides |= {(): option for key, option in self.overrides.items() if loc[: len(key)] == key}  # noqa: B035
        return _Document(self.file, data, cut(self.marks), cut(self.key_marks), overrides)


def _models(document: _Document, recipe: Recipe, folder: Path) -> dict[str, tuple[str, StrictModel]]:
    problems = []
    built: dict[str, tuple[str, StrictModel]] = {}
    if "policy" not in recipe.models:
        problems.append(document.problem(("models",), "the role 'policy' is missing", key=True))
    for role, given in recipe.models.items():
        if role not in ROLES:
            text = f"unknown role {role!r}{yamlfile.nearest(role, ROLES)}; roles: {', '.join(ROLES)}"
            problems.append(document.problem(("models", role), text, key=True))
            continue
        source = role
        passed = [role]
        while isinstance(given, str) and given in recipe.models and given not in passed:  # a role may name another
            source = given
            passed.append(given)
            given = recipe.models[given]
        if isinstance(given, str):
            hint = yamlfile.nearest(given, [name for name in recipe.models if name not in passed])
            round_trip = "; the roles name one another" if given in passed else hint
            text = f"no role {given!r} to share a model with{round_trip}"
            problems.append(document.problem(("models", source), text))
            continue
        if not isinstance(given, dict):
            problems.append(document.problem(("models", source), "must be a mapping, or the name of another role"))
            continue
        options = {**given}
        backend = str(options.pop("backend", "vllm"))
        try:
            config_type: type[StrictModel] = plugins.load("cai.backends", backend).Config
            for name in ("model", "chat_template", "script"):
                if name in options and _is_path(str(options[name]), folder):
                    options[name] = str((folder / Path(str(options[name])).expanduser()).resolve())
            built[role] = backend, yamlfile.validate(document.below(("models", source), options), config_type)
        except InvalidFile as error:
            problems.extend(error.problems)
        except InputError as error:
            problems.append(document.problem(("models", source, "backend"), str(error)))
    if problems:
        raise InvalidFile(sorted(set(problems)))
    for role in ROLES:
        built.setdefault(role, built["policy"])
    return built


def _is_path(value: str, folder: Path) -> bool:
    """Whether a value names a file or folder (a server's model name does not)."""
    return value.startswith((".", "/", "~")) or (bool(value) and (folder / value).exists())
