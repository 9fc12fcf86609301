"""The run that all others are compared with, and the processes that are killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.rehearsal import (
    FAST,
    RECIPE,
    Nursery,
    forget_results,
    inside,
)


@pytest.fixture(scope="package")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    with (folder / "prompts.jsonl").open("w") as file:
        for number in range(160):
            turn = {
                "role": "user",
                "content": f"Question {number}: what is to be done about the matter of {number * 7}? ä",
            }
            row = {"messages": [turn], "tags": ["helpful"] if number % 5 == 0 else ["red-team"]}
            file.write(json.dumps(row) + "\n")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="package")
def undisturbed(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert inside("run", recipe, "--run-dir", folder, *FAST).exit_code == 0
    told = json.loads((folder / "metrics.json").read_text())
    assert told["revise"]["quarantined"]["backend"] > 0, "no fault took part"
    assert told["revise"]["flags_of_retried"]["empty"] > 0
    assert len(list((folder / "sft").iterdir())) == 5
    return folder


@pytest.fixture
def copy(undisturbed: Path, tmp_path: Path) -> Path:
    """The finished run without its results, to be harmed."""
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    forget_results(folder)
    return folder


@pytest.fixture(scope="package")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    with made.process as process:
        yield made
        assert process.stdin
        process.stdin.close()
