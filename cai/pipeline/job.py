"""A recipe with everything it names loaded, and the digests that tell one run from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai import plugins
from cai.config import LoadedRecipe, SamplingConfig
from cai.constitution.load import Constitution, load_constitution
from cai.engine import Sampling
from cai.errors import InputError
from cai.stages import revise
from cai.stages.export import SftOptions
from cai.stages.transcript import Transcript


@dataclass(frozen=True)
class Job:
    """A recipe with everything it names loaded, but no model."""

    loaded: LoadedRecipe
    constitution: Constitution
    plan: revise.Plan
    sft: SftOptions
    fingerprints: Mapping[str, str]
    """By role."""


def prepare(loaded: LoadedRecipe, *, models: bool = True, constitution: Constitution | None = None) -> Job:
    """Load the constitution and look at the models' files, so that what is wrong is said before any model loads.

    Args:
        models: false where none will be asked; then they need not be there.
        constitution: instead of the one that the recipe names.

    Raises:
        CaiError: anything that the recipe names is missing or wrong.
    """
    recipe = loaded.recipe
    name = recipe.constitution
    if constitution is None:
        constitution = load_constitution(loaded.resolve(name) if name.endswith((".yaml", ".yml")) else name)
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
    )
    fingerprints = {
        role: plugins.load("cai.backends", backend).fingerprint(config)
        for role, (backend, config) in loaded.models.items()
        if models
    }
    return Job(loaded, constitution, plan, sft, fingerprints)


def _sampling(config: SamplingConfig) -> Sampling:
    return Sampling(**config.model_dump())


def inputs(job: Job) -> dict[str, Any]:
    """Digests of all that the results depend on; two runs with equal inputs are the same run."""
    recipe = job.loaded.recipe
    return {
        "seed": recipe.seed,
        "constitution": job.constitution.hash,
        "models": dict(sorted(job.fingerprints.items())),
        "prompts": [
            {
                **source.model_dump(mode="json", exclude={"path", "source"}),
                "sha256": _digest(job.loaded.resolve(source.path)),
            }
            for source in recipe.prompts
        ],
        "revise": recipe.revise.model_dump(mode="json"),
    }


def _digest(path: Path) -> str:
    import hashlib

    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:24]
