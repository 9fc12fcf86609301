"""The JSON Schemas of the files people edit; editors with a YAML language server check and complete by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cai.constitution.model import ConstitutionFile, Principle
from cai.errors import InputError
from cai.store import write_text
from cai.yamlfile import StrictModel, nearest

MODELS: dict[str, type[StrictModel]] = {"principle": Principle, "constitution": ConstitutionFile}


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of `principle` or `constitution` files.

    Raises:
        InputError: another kind.
    """
    if kind not in MODELS:
        raise InputError(
            f"no schema {kind!r}{nearest(kind, list(MODELS))}", where="schema", mend=f"one of: {', '.join(MODELS)}"
        )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **MODELS[kind].model_json_schema(),
        "title": f"cai {kind}",
    }


def write_schemas(folder: Path, kinds: tuple[str, ...] = tuple(MODELS)) -> list[Path]:
    """Write `<kind>.schema.json` files into `folder`, replacing older ones; returns their paths."""
    written = []
    for kind in kinds:
        path = folder / f"{kind}.schema.json"
        write_text(path, json.dumps(schema(kind), ensure_ascii=False, indent=2) + "\n")
        written.append(path)
    return written
