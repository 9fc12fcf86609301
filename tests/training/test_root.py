"""`cai.train`, which puts a training together from a recipe: what it says for every algorithm alike."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cai import train as root
from cai.backends import scripted
from cai.config import load_recipe
from cai.engine import Generate, Request, Sampling
from cai.runs import RunFolder
from cai.training.base import Job, TrainingError
from cai.training.rewards import Tools
from cai.yamlfile import StrictModel

RECIPE = """
name: tiny
constitution: humanity
prompts: [{path: prompts.jsonl}]
models:
  policy: {backend: scripted}
  judge: {backend: scripted, name: another}
"""


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB"), MemoryError(), RuntimeError("another")]
)
def test_memory_that_does_not_suffice_is_told_wherever_it_runs_out(tmp_path: Path, error: Exception) -> None:
    """Loading, a reference pass and a report happen before and after the steps."""

    def loads(job: Job, settings: StrictModel) -> None:
        raise error

    job = Job("dpo", tmp_path / "dpo", tmp_path, 0)
    prepared = root.Prepared(SimpleNamespace(train=loads), StrictModel(), job, contextlib.ExitStack())
    if str(error) == "another":
        with pytest.raises(RuntimeError, match="another"):
            root.train(prepared)
        return
    with pytest.raises(TrainingError, match=r"not enough memory.*micro_batch"):
        root.train(prepared)


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Callable[[str], Tools]]:
    """What the rewards of a training of this name are built with; trainings of one run."""
    (tmp_path / "recipe.yaml").write_text(RECIPE, "utf-8")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hello"}\n', "utf-8")
    loaded, place = load_recipe(tmp_path / "recipe.yaml"), RunFolder(tmp_path / "run")
    with contextlib.ExitStack() as opened:
        yield lambda name: root._tools(loaded, place, tmp_path / "run" / "train" / name, opened)


def question(number: int, seen: list[str]) -> Callable[[Generate], Any]:
    async def ask(generate: Generate) -> None:
        seen.append((await generate(Request(f"Question {number}?", Sampling(), seed=0))).text)

    return ask


def test_trainings_of_a_run_ask_into_logs_of_their_own_and_know_what_was_asked_before(
    tmp_path: Path, tools: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers of one log find one another's rows where they look for their own."""
    pytest.importorskip("torch")
    asked: list[Any] = []
    generates = scripted.Backend.generate

    async def counted(self: Any, request: Request) -> Any:
        asked.append(request.prompt)
        return await generates(self, request)

    monkeypatch.setattr(scripted.Backend, "generate", counted)
    train = tmp_path / "run" / "train"
    first: list[str] = []
    again: list[str] = []
    one, other = tools("grpo"), tools("rloo")
    for number in range(4):
        for made, role in ((one, "policy"), (one, "judge"), (other, "policy")):
            made.ask(role)([question(number, first)])
    for number in range(4):
        for made, role in ((one, "policy"), (one, "judge"), (other, "policy")):
            made.ask(role)([question(number, again)])
    assert again == first
    assert len(asked) == 12
    assert not (train / "requests.jsonl").exists()
    (train / "grpo" / "requests.jsonl").rename(train / "requests.jsonl")  # of an older version, and of all
    tools("dpo").ask("judge")([question(number, []) for number in range(4)])
    assert len(asked) == 12
    assert len((train / "dpo" / "requests.jsonl").read_bytes().splitlines()) == 4


def test_random_numbers_go_on_where_they_were_when_a_model_was_loaded(
    tools: Callable[[str], Tools], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed training loads it at another step."""
    torch = pytest.importorskip("torch")
    import numpy

    def draws() -> list[float]:
        return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]

    def seed(number: int) -> None:
        for one in (random.seed, numpy.random.seed, torch.manual_seed):
            one(number)

    builds = scripted.build

    def seeds(*given: Any, **named: Any) -> Any:
        seed(0)  # as vLLM does
        return builds(*given, **named)

    monkeypatch.setattr(scripted, "build", seeds)
    seed(5)
    wanted = draws()
    seed(5)
    tools("grpo").ask("judge")([question(0, [])])
    assert draws() == wanted


def test_what_was_asked_stays_known_to_a_training_that_begins_anew(tmp_path: Path) -> None:
    for name in ("requests.jsonl", "requests-1.jsonl", "metrics.jsonl"):
        (tmp_path / name).write_text("", "utf-8")
    root._move_into_history(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"requests.jsonl", "requests-1.jsonl", "history"}
    assert (tmp_path / "history" / "001" / "metrics.jsonl").is_file()
