"""Real vLLM and the real small model: each test runs it in processes of its own, as users do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MODEL = Path(__file__).resolve().parents[2] / ".build" / "smollm2-135m-instruct"
Cai = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def model() -> Path:
    """The folder of the small model that `make model` builds."""
    if not (MODEL / "model.safetensors").is_file():
        pytest.fail("the small model is missing: run `make model`")
    return MODEL


@pytest.fixture
def cai(tmp_path: Path) -> Cai:
    """Run the command line in `tmp_path`; anything but exit code 0 fails the test."""

    def run(*arguments: str, timeout: float = 1200) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done

    return run


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from cai.cli.main import app; app()", *arguments]


def recipe(folder: Path, policy: str, *, rows: int = 12, rounds: int = 1) -> Path:
    """A small recipe over the shipped prompts, red-team, borderline and multi-turn ones among them."""
    shipped = Path(__file__).resolve().parents[2] / "examples" / "prompts.jsonl"
    lines = shipped.read_text("utf-8").splitlines()
    (folder / "prompts.jsonl").write_text("\n".join(lines[:: len(lines) // rows][:rows]) + "\n", "utf-8")
    path = folder / "recipe.yaml"
    sampling = "{max_tokens: 32, temperature: 0.7}"
    path.write_text(
        f"name: real\nseed: 3\nprompts: [{{path: prompts.jsonl}}]\nmodels:\n  policy: {policy}\n"
        f"revise:\n  rounds: {rounds}\n  few_shot: 1\n"
        f"  draft: {sampling}\n  critic: {sampling}\n  revision: {sampling}\n"
        # A 135M model cut off at 32 tokens is hardly ever clean; what is exported is not what is tested here.
        "sft: {test_fraction: 0.3}\n",
        "utf-8",
    )
    return path


os.environ.setdefault("HF_HUB_OFFLINE", "1")
