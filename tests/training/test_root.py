"""`cai.train`, which puts a training together from a recipe: what it says for every algorithm alike."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from cai import train as root
from cai.training.base import Job, TrainingError
from cai.yamlfile import StrictModel


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
