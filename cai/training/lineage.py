"""Where a checkpoint comes from: `lineage.json` and the model card, written beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cai.modelfolder import fingerprint
from cai.store import write_json, write_text
from cai.training.base import Job, Reward

NAME = "lineage.json"


def read_lineage(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint of ours says of itself; None for any other model."""
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def write_lineage(
    folder: Path,
    *,
    algorithm: str,
    parent: Path,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
    rewards: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> None:
    """Write both files.

    Args:
        given: what the composition root knows: run, constitution, licence.
        data: digest and counts of what was trained on.
        metrics: figures of the step whose weights these are.
        rewards: see `rewards_of`.
        step: the step whose weights these are, where it need not be the last.
    """
    lineage = {
        "algorithm": algorithm,
        "parent": {"model": fingerprint(parent), "lineage": read_lineage(parent)},
        **dict(given),
        "data": dict(data),
        **dict(rewards or {}),
        "settings": dict(settings),
        **({} if step is None else {"step": step}),
    }
    write_json(folder / NAME, lineage)
    write_text(folder / "README.md", _card(lineage, metrics))


def rewards_of(job: Job) -> dict[str, Any]:
    """What was maximised, and what was only watched: names, hashes, and the models and principles they rest on."""
    told: dict[str, Any] = {}
    if job.reward is not None:
        told["reward"] = described(job.reward)
    if job.gold:
        told["gold"] = {name: described(reward) for name, reward in job.gold.items()}
    return told


def described(reward: Reward) -> dict[str, Any]:
    """A reward's name, its id, and its `origin` where it tells one."""
    return {"name": reward.name, "id": getattr(reward, "id", ""), **getattr(reward, "origin", {})}


def _card(lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    chain = [lineage["algorithm"]]
    older = lineage["parent"]
    while older.get("lineage"):
        chain.append(older["lineage"]["algorithm"])
        older = older["lineage"]["parent"]
    names = ("constitution", "run")
    told = [f"- {name}: {_line(lineage[name])}" for name in names if lineage.get(name)]
    told += [f"- reward: {_line(lineage['reward']['name'])}"] if lineage.get("reward") else []
    told += [f"- weights of step {lineage['step']}"] if "step" in lineage else []
    figures = [f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items()) if isinstance(value, int | float)]
    head = ["---", "library_name: transformers", "tags: [cai, constitutional-ai]"]
    if lineage.get("license"):
        head.append(f"license: {json.dumps(str(lineage['license']))}")
    lines = [
        *head,
        "---",
        f"# {lineage['algorithm']} from {_line(older['model'])}",
        "",
        f"Trained by `cai train`: {' on '.join(chain)}, starting from {_line(older['model'])}.",
        "",
        *told,
        f"- data: {_line(lineage['data'].get('digest', ''))}",
        "- everything else: `lineage.json`",
        "",
        "| figure | value |",
        "|---|---|",
        *figures,
        "",
    ]
    return "\n".join(lines)


def _line(value: Any) -> str:
    return str(value).replace("\n", " ").replace("|", "\\|")
