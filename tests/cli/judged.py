"""A small run with a judge on the scripted backend, for the tests of `cai judge`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from cai.cli.main import app

RECIPE = """
name: judged
seed: 5
prompts: [{path: prompts.jsonl}]
models: {policy: {backend: scripted, fail: {empty: 0.03}}}
revise: {rounds: 1}
sft: {test_fraction: 0.3}
sample: {include: [draft, last_revision], sources: [{count: 2}, {count: 1, temperature: 0.3, name: cool}]}
judge: {}
"""


def cai(*args: str, ok: bool = True) -> Result:
    found = CliRunner().invoke(app, list(args))
    assert (found.exit_code == 0) is ok, found.output
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
