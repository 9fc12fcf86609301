"""A small project on the scripted backend, for the tests of `cai run`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cai.backends import scripted
from cai.cli.main import app
from cai.engine import Completion, Request
from cai.errors import BackendError

RECIPE = """\
name: small
seed: 3
constitution: constitution/own.yaml
prompts:
  - path: data/prompts.jsonl
models:
  policy: {backend: scripted}
revise:
  rounds: 2
sft: {test_fraction: 0.3}
"""


KINDS = [f"kind-{n:02d}" for n in range(16)]


class Project:
    """A folder with a constitution of 16 equal principles, prompts and a recipe; the current folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ("constitution", "principles", "data"):
            (root / kind).mkdir()
        for name in KINDS:
            self.principle(name)
        names = "".join(f"  - {{id: {name}}}\n" for name in KINDS)
        (root / "constitution" / "own.yaml").write_text(f"name: own\nprinciples:\n{names}")
        (root / "recipe.yaml").write_text(RECIPE)
        self.prompts(10)

    def principle(self, name: str, critique: str = "") -> None:
        critique = critique or f"Is it {name}?"
        text = f"id: {name}\ntitle: {name}\ncritique: {critique}\nrevision: Make it {name}.\n"
        (self.root / "principles" / f"{name}.yaml").write_text(text)

    def prompts(self, count: int, *, helpful: int = 2) -> None:
        rows = [
            {"messages": [{"role": "user", "content": f"Question {n}?"}], "tags": ["helpful"] if n < helpful else []}
            for n in range(count)
        ]
        (self.root / "data" / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, path: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / path).read_text().splitlines()]

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


def cai(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result


def usage(project: Project, run: str = "runs/small") -> dict[str, int]:
    found: dict[str, int] = project.rows(f"{run}/attempts.jsonl")[-1]["usage"]
    return found


def only_greets(patch: pytest.MonkeyPatch) -> None:
    """Let the scripted backend fail on every prompt but the plainest."""
    answer = scripted.Backend.generate

    async def generate(self: scripted.Backend, request: Request) -> Completion:
        if isinstance(request.prompt, str) or all(turn.content != "Hello" for turn in request.prompt):
            raise BackendError("broken", where="here")
        return await answer(self, request)

    patch.setattr(scripted.Backend, "generate", generate)
