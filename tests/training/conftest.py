"""What holds for the tests of training: one thread, since models are tiny and the machine may be busy; a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a few thousand weights; nobody writes into its folder."""
    from tests.training import tiny_rl

    return tiny_rl.write_model(tmp_path_factory.mktemp("tiny"))
