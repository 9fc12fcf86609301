"""A recipe with everything it names loaded, and the digests that tell one run from another."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai import plugins
from cai.config import LoadedRecipe
from cai.constitution.load import Constitution, load_constitution
from cai.engine import Sampling
from cai.errors import InputError
from cai.evals.calibration import Calibration, calibration_path, keeps_sides, load_calibration
from cai.judging import most_answers, panels
from cai.judging.members import roles
from cai.prompts.formats.dataset import arrow_files
from cai.recipe import Recipe, SamplingConfig
from cai.stages import judge, revise, sample
from cai.stages.export import SftOptions
from cai.stages.prefer import Rule
from cai.stages.select import SelectOptions
from cai.stages.transcript import Transcript
from cai.store import readable
from cai.yamlfile import nearest


@dataclass(frozen=True)
class Job:
    """A recipe with everything it names loaded, but no model."""

    loaded: LoadedRecipe
    constitution: Constitution
    plan: revise.Plan
    sft: SftOptions
    sample: sample.Plan
    judge: judge.Plan | None
    judge_roles: tuple[str, ...]
    """The models that the judge asks."""
    rule: Rule
    calibration: Calibration | None
    """Which `rule` applies."""
    select: SelectOptions
    fingerprints: Mapping[str, str]
    """By role."""


def prepare(
    loaded: LoadedRecipe,
    *,
    models: bool = True,
    known: Mapping[str, str] | None = None,
    constitution: Constitution | None = None,
) -> Job:
    """Load the constitution and look at the models' files, so that what is wrong is said before any model loads.

    Args:
        models: false where none is of interest; then neither they nor the prompts need be there.
        known: where none will be asked, the fingerprints by role that a run was made with (see `recorded`): of models
            that are no longer there they are taken from here, and the prompts need not be there either.
        constitution: instead of the one that the recipe names.

    Raises:
        CaiError: anything that the recipe names is missing or wrong.
    """
    recipe = loaded.recipe
    asks = models and known is None
    if asks:
        for source in recipe.prompts:
            path = loaded.resolve(source.path)
            with _readable(path):
                there = path.exists()
            if not there:
                raise InputError("no such file or folder", where=f"prompts: {path}", mend="check `path` in the recipe")
    if constitution is None:
        constitution = load_constitution(loaded.constitution())
    if recipe.system_prompt is not None:
        constitution = constitution.with_system_prompt(recipe.system_prompt)
    options = recipe.revise
    if options.rounds and not constitution.revising:
        raise InputError(
            "none of its principles has a critique request and a weight above 0",
            where=f"constitution {constitution.name}",
            mend="give one of them `critique` and `revision`, or set revise.rounds to 0",
        )
    transcript = Transcript(constitution, style=options.style, few_shot=options.few_shot, critique=options.critique)
    plan = revise.Plan(
        constitution=constitution,
        transcript=transcript,
        seed=recipe.seed,
        rounds=options.rounds,
        principles_per_critique=options.principles_per_critique,
        critique=options.critique,
        unrevised_tags=frozenset(options.unrevised_tags),
        unrevised_samples=options.unrevised_samples,
        retries=options.retries,
        draft=_sampling(options.draft),
        critic=_sampling(options.critic),
        revision=_sampling(options.revision),
    )
    sft = SftOptions(
        seed=recipe.seed,
        revisions=recipe.sft.revisions,
        include_unrevised=recipe.sft.include_unrevised,
        unrevised_tags=plan.unrevised_tags if plan.rounds else None,
        test_fraction=recipe.sft.test_fraction,
        system_prompt=constitution.system_prompt.strip() if recipe.sft.system_prompt else "",
        drop_flags=frozenset(recipe.sft.drop_flags),
    )
    fingerprints = _fingerprints(loaded, known or {}) if models else {}
    _one_place_each(loaded, fingerprints)
    if asks:
        _can_chat(loaded, plan)
        _can_differ(recipe)
    # Without models no judge can be told from another, and none will be asked.
    judging = _judge_plan(loaded, constitution, fingerprints) if models else None
    calibration = _calibration(loaded, judging)
    sampling = _sample_plan(recipe, transcript)
    largest = sampling.largest(plan.rounds, plan.most_drafts)
    if judging is not None and largest < 2:
        raise InputError(
            "a comparison needs two answers",
            where="sample",
            mend="raise `count` of its sources, or `include` a draft or revisions",
        )
    most = most_answers(judging.judge) if judging else None
    if most is not None and largest > most:
        raise InputError(
            f"up to {largest} answers to a prompt are compared, and the judge has a letter for {most}",
            where="judge",
            mend="give its prompt more choices, sample fewer answers, or take the judge `tournament` or `rating`",
        )
    if calibration is not None and judging is not None:
        calibration.check_groups(judging.judge, largest)
    return Job(
        loaded=loaded,
        constitution=constitution,
        plan=plan,
        sft=sft,
        sample=sampling,
        judge=judging,
        judge_roles=roles(loaded.judge) if loaded.judge else (),
        rule=_rule(loaded, calibration),
        calibration=calibration,
        select=_select_options(recipe),
        fingerprints=fingerprints,
    )


def _fingerprints(loaded: LoadedRecipe, known: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for role, (backend, config) in loaded.models.items():
        try:
            found[role] = plugins.load("cai.backends", backend).fingerprint(config)
        except InputError:
            if role not in known:
                raise
            found[role] = known[role]
    return found


def recorded(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The fingerprints by role that a run was made with; of one made before all were noted, those of its loop."""
    return {**manifest.get("inputs", {}).get("models", {}), **manifest.get("fingerprints", {})}


def _can_chat(loaded: LoadedRecipe, plan: revise.Plan) -> None:
    """Refuse a model that is asked in chat and has no chat template, before minutes go by in loading it."""
    recipe = loaded.recipe
    asked = roles(loaded.judge) if loaded.judge else ()  # judges ask in chat, whatever the style
    if recipe.revise.style == "chat":
        sampled = tuple(source.model for source in recipe.sample.sources) if loaded.judge else ()
        asked = (*plan.roles, *sampled, *asked)
    for role in asked:
        name, config = loaded.models[role]
        chats = getattr(plugins.load("cai.backends", name), "chats", None)
        if chats is not None and not chats(config):
            raise InputError(
                "the model has no chat template, and it is asked in chat",
                where=f"models.{role}",
                mend="give it a `chat_template`, or take an instruct model; for the loop, revise.style: base does "
                "without",
            )


def _can_differ(recipe: Recipe) -> None:
    """Refuse to ask for several answers at temperature 0, which would be one answer, paid for several times."""
    several = [
        (f"sample.sources.{number}", "count", source.count, source.temperature)
        for number, source in enumerate(recipe.sample.sources)
        if recipe.judge
    ]
    several.append(("revise", "unrevised_samples", recipe.revise.unrevised_samples, recipe.revise.draft.temperature))
    for where, name, count, temperature in several:
        if count > 1 and temperature == 0:
            raise InputError(
                f"at temperature 0 its {count} answers to a prompt would be the same",
                where=where,
                mend=f"set `{name}` to 1, or raise the temperature",
            )


def _one_place_each(loaded: LoadedRecipe, fingerprints: Mapping[str, str]) -> None:
    """Refuse two servers under one fingerprint, which would share their answers, unless the recipe says they may."""
    first: dict[str, tuple[str, str]] = {}
    for role, print_ in fingerprints.items():
        config = loaded.models[role][1]
        url = getattr(config, "url", "")
        other, there = first.setdefault(print_, (role, url))
        if _address(url) != _address(there) and not getattr(config, "identity", ""):
            raise InputError(
                f"and {other} ask one model name at two addresses of this machine, {url} and {there}",
                where=f"models.{role}",
                mend="give each an `identity`, the same if the same weights answer at both",
            )


def _address(url: str) -> str:
    """Host and port; how the rest is written tells no two servers apart that have one fingerprint."""
    return url.partition("//")[2].partition("/")[0].lower()


def _rule(loaded: LoadedRecipe, calibration: Calibration | None) -> Rule:
    options = loaded.recipe.preferences
    panel: panels.Rule = getattr(loaded.judge, "rule", "mean")
    slope, offset = (calibration.a, calibration.b) if calibration else (1.0, 0.0)
    return Rule(panel=panel, need_both=options.need_both, tie_band=options.tie_band, slope=slope, offset=offset)


def _calibration(loaded: LoadedRecipe, judging: judge.Plan | None) -> Calibration | None:
    """The recipe's calibration, of this very judge, its questions and its rule; None where no judge is known."""
    given = loaded.recipe.preferences.calibration
    if not given or judging is None:
        return None
    calibration = load_calibration(calibration_path(given, loaded.folder))
    rule = _rule(loaded, None)
    asked = judge.asked(judging.judge, judging.constitution, judging.principles, judging.axes, rule)
    calibration.check(judging.judge.kind, asked)
    if calibration.b and keeps_sides(loaded.judge):
        raise InputError(
            "an offset on labels of both orders would prefer one of two equal answers",
            where=given,
            mend="fit it with --fit temperature",
        )
    return calibration


def _select_options(recipe: Recipe) -> SelectOptions:
    given = recipe.preferences.model_dump(exclude={"need_both", "tie_band", "formats", "calibration"})
    axes = recipe.preferences.axes
    # The same seed and fraction as the SFT data's: what one model was trained on never tests the other.
    return SelectOptions(
        **{**given, "axes": frozenset(axes) if axes else None, "test_fraction": recipe.sft.test_fraction},
        seed=recipe.seed,
    )


def _sample_plan(recipe: Recipe, transcript: Transcript) -> sample.Plan:
    options = recipe.sample
    sources: list[sample.Source] = []
    for source in options.sources:
        name = source.name or source.model
        taken = {other.name for other in sources}
        number = 2
        while name in taken:
            name, number = f"{source.name or source.model}{number}", number + 1
        sampling = Sampling(source.max_tokens, source.temperature, source.top_p, source.top_k)
        sources.append(sample.Source(name, source.model, source.count, sampling))
    return sample.Plan(
        sources=tuple(sources),
        transcript=transcript,
        seed=recipe.seed,
        include=frozenset(options.include),
        near_duplicate=options.near_duplicate,
    )


def _judge_plan(loaded: LoadedRecipe, constitution: Constitution, fingerprints: Mapping[str, str]) -> judge.Plan | None:
    options = loaded.recipe.judge
    if options is None or loaded.judge is None:
        return None
    axes = {bound.principle.axis for bound in constitution.judging}
    for axis in options.axes:
        if axis not in axes:
            raise InputError(
                f"no principle with a judge's question is of the axis {axis!r}{nearest(axis, sorted(axes))}",
                where=f"judge.axes, constitution {constitution.name}",
                mend=f"its axes: {', '.join(sorted(axes)) or 'none'}",
            )
    if options.principles != "none" and not constitution.judging:
        raise InputError(
            "none of its principles has a judge's question and a weight above 0",
            where=f"constitution {constitution.name}",
            mend="give one of them `judge`, or set judge.principles to none",
        )
    build = plugins.load("cai.judges", options.method).build
    return judge.Plan(
        constitution=constitution,
        judge=build(loaded.judge, models=fingerprints, seed=loaded.recipe.seed),
        principles=options.principles,
        axes=options.axes,
        seed=loaded.recipe.seed,
    )


def _sampling(config: SamplingConfig) -> Sampling:
    return Sampling(**config.model_dump())


def inputs(job: Job, before: Mapping[str, Any]) -> dict[str, Any]:
    """Digests of all that the results depend on; two runs with equal inputs are the same run.

    Args:
        before: the inputs that the run was made from, empty of one that has not begun. What its prompts were is taken
            from here where their files are gone: it has its own copy.
    """
    recipe = job.loaded.recipe
    copied = [source.get("sha256") for source in before.get("prompts", ())]
    copied += [None] * (len(recipe.prompts) - len(copied))
    return {
        "seed": recipe.seed,
        "constitution": job.constitution.hash,
        "models": {role: job.fingerprints[role] for role in ("critic", "policy", "reviser")},
        "prompts": [
            {
                **source.model_dump(mode="json", exclude={"path", "source", "allow_torn"}),
                "sha256": _digest(job.loaded.resolve(source.path), copied[number]),
            }
            for number, source in enumerate(recipe.prompts)
        ],
        "revise": recipe.revise.model_dump(mode="json"),
        "sample": {
            **recipe.sample.model_dump(mode="json"),
            "models": [job.fingerprints[source.model] for source in job.sample.sources],
        },
        **({"judge": _judge_inputs(job.judge)} if job.judge else {}),
    }


def _judge_inputs(plan: judge.Plan) -> dict[str, Any]:
    return {"id": plan.judge.id, "principles": plan.principles, "axes": list(plan.axes)}


def _digest(path: Path, copied: str | None) -> str:
    import hashlib

    with _readable(path):
        if copied is not None and not path.exists():
            return copied
        files = arrow_files(path)  # of a folder what is read of it: `datasets` caches beside that what was mapped
    digest = hashlib.sha256()
    for file in files:
        with _readable(file), file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:24]


def _readable(path: Path) -> AbstractContextManager[None]:
    return readable(path, where=f"prompts: {path}", mend="check its permissions")
