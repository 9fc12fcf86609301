"""Reading a recipe: one YAML file that says everything about a run. Validated before any model loads.

Paths in a recipe are relative to the recipe's own folder. A configuration never enters the stages: `cai.pipeline`
flattens it to plain parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai import plugins, yamlfile
from cai.constitution.find import find_constitution
from cai.errors import InputError
from cai.judging.prompt import absolute_prompts
from cai.recipe import ROLES, Recipe, models_named
from cai.training.passthrough import check_block
from cai.yamlfile import Document, InvalidFile, Loc, Problem, StrictModel


class LoadedRecipe:
    """A recipe with its place, its models' configurations validated by their backends.

    Attributes:
        path: the recipe's file; `folder` is where it lies, as an absolute path.
        models: by role: (backend name, validated `Config` of that backend).
        judge: validated `Config` of the judge's method, if the recipe has a judge.
    """

    def __init__(
        self,
        recipe: Recipe,
        path: Path,
        models: dict[str, tuple[str, StrictModel]],
        judge: StrictModel | None = None,
    ) -> None:
        self.recipe = recipe
        self.path = path
        self.folder = path.resolve().parent
        self.models = models
        self.judge = judge

    def resolve(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's folder."""
        return self.folder / Path(path).expanduser()

    def constitution(self) -> Path:
        """The file that the recipe's constitution means; a name is looked up in the recipe's own folder first.

        Raises:
            InputError: there is none; lists the names that exist.
        """
        return self._constitution(self.recipe.constitution)

    def _constitution(self, name: str) -> Path:
        return self.resolve(name) if name.endswith((".yaml", ".yml")) else find_constitution(name, self.folder)

    def resolved(self) -> dict[str, Any]:
        """The recipe with every default spelled out; can be run again from anywhere. Secrets are never part of it.

        Raises:
            InputError: there is no constitution of that name.
        """
        data: dict[str, Any] = self.recipe.model_dump(mode="json", exclude_none=True)
        data["models"] = {
            role: {"backend": name, **config.model_dump(mode="json")} for role, (name, config) in self.models.items()
        }
        for source, given in zip(data["prompts"], self.recipe.prompts, strict=True):
            source["source"] = given.label
            source["path"] = str(self.resolve(source["path"]).resolve())
        data["constitution"] = str(self.constitution().resolve())  # the same name may mean another from elsewhere
        if self.judge is not None:
            data["judge"]["options"] = self.judge.model_dump(mode="json")
        if calibration := self.recipe.preferences.calibration:
            from cai.evals.calibration import calibration_path  # brings numpy

            data["preferences"]["calibration"] = str(calibration_path(calibration, self.folder).resolve())
        for block in data["train"].values():
            block |= {key: absolute_prompts(block[key], self.folder) for key in ("rewards", "gold")}
            for given in [block, *block["pairs"], *block["rewards"], *block["gold"].values()]:
                for key in ("parent", "data", "path", "references"):
                    if given.get(key):
                        given[key] = str(self.resolve(given[key]).resolve())
                if given.get("constitution"):
                    given["constitution"] = str(self._constitution(given["constitution"]).resolve())
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
    folder = path.resolve().parent
    _formats(document, recipe)
    _training(document, recipe)
    return LoadedRecipe(recipe, path, _models(document, recipe, folder), _judge(document, recipe, folder))


class _Score(StrictModel):
    """What each score of a `train` block says beside the options of its kind."""

    kind: str
    weight: float = 1.0


def _training(document: _Document, recipe: Recipe) -> None:
    """Refuse what `cai train` would refuse once the run has been made; nothing heavy is loaded for it."""
    problems: list[Problem] = []
    for name, block in recipe.train.items():
        place: Loc = ("train", name)
        try:
            algorithm = plugins.load("cai.training.algorithms", name)
        except InputError as error:
            problems.append(document.problem(place, str(error), key=True))
            continue
        problems += _faults(document, (*place, "settings"), block.settings, algorithm.Config)
        for key, value in block.trl.items():  # whether TRL has such a key, only TRL can tell
            try:
                check_block({key: value}, name, algorithm.Config.model_fields)
            except InputError as error:
                problems.append(document.problem((*place, "trl", key), f"{error.what} ({error.mend})", key=True))
        for number, given in enumerate(block.rewards):
            problems += _score(document, (*place, "rewards", number), given, recipe)
        for label, given in block.gold.items():
            problems += _score(document, (*place, "gold", label), given, recipe)
    if problems:
        raise InvalidFile(sorted(set(problems)))


def _score(document: _Document, loc: Loc, given: Mapping[str, Any], recipe: Recipe) -> Sequence[Problem]:
    """What is wrong with one of the rewards, or of the scores that are only watched."""
    said = {key: value for key, value in given.items() if key in _Score.model_fields}
    if faults := _faults(document, loc, said, _Score):
        return faults
    try:
        module = plugins.load("cai.training.rewards", given["kind"])
    except InputError as error:
        return [document.problem((*loc, "kind"), str(error))]
    options = {key: value for key, value in given.items() if key not in said}
    if faults := _faults(document, loc, options, module.Config):
        return faults
    model, known = options.get("backend"), list(dict.fromkeys((*ROLES, *recipe.models)))
    if model is None or model in known:
        return ()
    return [document.problem((*loc, "backend"), f"no model {model!r}{yamlfile.nearest(model, known)}")]


def _faults(document: _Document, loc: Loc, data: Mapping[str, Any], model: type[StrictModel]) -> Sequence[Problem]:
    """What is wrong with `data`, the part of the recipe at `loc`, by what it has to be."""
    try:
        yamlfile.validate(document.below(loc, dict(data)), model)
    except InvalidFile as error:
        return error.problems
    return ()


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
        if role not in recipe.names:
            text = f"unknown role {role!r}{yamlfile.nearest(role, recipe.names)}; roles: {', '.join(recipe.names)}"
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
            module = plugins.load("cai.backends", backend)
            for name in getattr(module, "PATHS", ()):
                if isinstance(value := options.get(name), str) and value:
                    options[name] = str((folder / Path(value).expanduser()).resolve())
            built[role] = backend, yamlfile.validate(document.below(("models", source), options), module.Config)
        except InvalidFile as error:
            problems.extend(error.problems)
        except InputError as error:
            problems.append(document.problem(("models", source, "backend"), str(error)))
    problems += _unknown_models(document, recipe)
    if problems:
        raise InvalidFile(sorted(set(problems)))
    for role in ROLES:
        built.setdefault(role, built["policy"])
    return built


def _judge(document: _Document, recipe: Recipe, folder: Path) -> StrictModel | None:
    """The options of the judge's method, checked by that method; paths of prompt files made absolute."""
    if recipe.judge is None:
        return None
    try:
        config_type: type[StrictModel] = plugins.load("cai.judges", recipe.judge.method).Config
    except InputError as error:
        raise InvalidFile([document.problem(("judge", "method"), str(error))]) from error
    options = absolute_prompts(recipe.judge.options, folder)
    return yamlfile.validate(document.below(("judge", "options"), options), config_type)


def _formats(document: _Document, recipe: Recipe) -> None:
    """Refuse a format of the preference data that there is not."""
    problems = []
    for index, name in enumerate(recipe.preferences.formats):
        try:
            plugins.load("cai.preferences.formats", name)
        except InputError as error:
            problems.append(document.problem(("preferences", "formats", index), str(error)))
    if problems:
        raise InvalidFile(problems)


def _unknown_models(document: _Document, recipe: Recipe) -> list[Problem]:
    """Models that samples or judges name and that are not there."""
    known = {*ROLES, *recipe.models}
    problems = []
    for index, source in enumerate(recipe.sample.sources):
        if source.model not in known:
            text = f"no model {source.model!r}{yamlfile.nearest(source.model, sorted(known))}"
            problems.append(document.problem(("sample", "sources", index, "model"), text))
    for name in models_named(recipe.judge.options if recipe.judge else {}):
        if name not in known:
            text = f"no model {name!r}{yamlfile.nearest(name, sorted(known))}"
            problems.append(document.problem(("judge", "options"), text))
    return problems
