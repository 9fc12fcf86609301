"""Where a checkpoint comes from: `lineage.json` and the model card, written beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cai.backends import vllm as identity
from cai.store import write_json, write_text

NAME = "lineage.json"


def read_lineage(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint of ours says of itself; None for any other model."""
    try:
        found: dict[str, Any] = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found


def fingerprint(folder: Path) -> str:
    """Name and hash of a model's files; see `cai.backends.vllm.fingerprint`."""
    return identity.fingerprint(identity.Config(model=str(folder)))


def write_lineage(
    folder: Path,
    *,
    algorithm: str,
    parent: Path,
    given: Mapping[str, Any],
    settings: Mapping[str, Any],
    data: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> None:
    """Write both files.

    Args:
        given: what the composition root knows: run, constitution, licence.
        data: digest and counts of what was trained on.
    """
    lineage = {
        "algorithm": algorithm,
        "parent": {"model": fingerprint(parent), "lineage": read_lineage(parent)},
        **dict(given),
        "data": dict(data),
        "settings": dict(settings),
    }
    write_json(folder / NAME, lineage)
    write_text(folder / "README.md", _card(lineage, metrics))


def _card(lineage: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    chain = [lineage["algorithm"]]
    older = lineage["parent"]
    while older.get("lineage"):
        chain.append(older["lineage"]["algorithm"])
        older = older["lineage"]["parent"]
    names = ("constitution", "run")
    told = [f"- {name}: {_line(lineage[name])}" for name in names if lineage.get(name)]
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
        "| figure | last |",
        "|---|---|",
        *figures,
        "",
    ]
    return "\n".join(lines)


def _line(value: Any) -> str:
    return str(value).replace("\n", " ").replace("|", "\\|")
