"""What `make demo` and `make test` install where there is a GPU, beside what they then run."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def extras_of(target: str, setup: ModuleType) -> set[str]:
    """Names of the packages that the extras of a target bring, without versions."""
    known: Mapping[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    return {line.split(">")[0].split("=")[0] for extra in setup.EXTRAS[target] for line in known[extra]}


def test_the_demo_can_generate_and_train(setup: ModuleType) -> None:
    assert extras_of("demo", setup) >= {"vllm", "openai", "torch", "trl", "peft", "datasets", "gguf"}


def test_the_tests_have_all_that_they_import(setup: ModuleType) -> None:
    wanted = {"vllm", "trl", "starlette", "uvicorn", "pytest", "mypy", "pyspellchecker", "krippendorff", "crowd-kit"}
    assert extras_of("dev", setup) >= wanted
    known: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(setup.EXTRAS["dev"]) == set(known) - {"cpu", "ray"}


def brought_by(extras: set[str]) -> set[str]:
    """Distributions that come with `cai` and these extras, by the metadata of what is installed."""
    known: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    left = [*known["dependencies"], *(line for extra in extras for line in known["optional-dependencies"][extra])]
    found: set[str] = set()
    while left:
        line = left.pop()
        name = re.split(r"[^\w.-]", line)[0].lower().replace("_", "-").replace(".", "-")
        if name in found or "extra ==" in line:
            continue
        found.add(name)
        try:
            left += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("labels", {"label"}),
        ("evals", {"eval"}),
        ("training", {"train", "cpu"}),
        ("judges", set()),
        ("stages", set()),
        ("constitution", set()),
    ],
)
def test_an_extra_brings_all_that_its_part_imports(folder: str, extras: set[str]) -> None:
    imported = set()
    for path in (ROOT / "cai" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.split(".")[0])
    outside = imported - set(sys.stdlib_module_names) - {"cai"}
    packages = importlib.metadata.packages_distributions()
    brought = brought_by(extras)
    missing = {
        module for module in outside if not brought & {name.lower().replace("_", "-") for name in packages[module]}
    }
    assert missing == set()


def test_pip_is_asked_for_the_extras_of_the_target(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, ...]] = []

    def pip(*arguments: str, check: bool = True) -> int:
        asked.append(arguments)
        return 0

    python = tmp_path / "python"
    python.touch()
    for name, value in {"VENV": tmp_path, "PYTHON": python, "has_gpu": lambda: True, "pip": pip}.items():
        monkeypatch.setattr(setup, name, value)
    monkeypatch.setattr("sys.argv", ["setup.py", "demo"])
    assert setup.main() == 0
    assert asked[0] == ("install", "-e", f"{setup.ROOT}[gpu,server,train]")
