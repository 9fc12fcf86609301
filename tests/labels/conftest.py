"""A judged run and a desk with it, for the tests of the labelling page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labels.page import Desk, judged_run, serving


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judged_run(tmp_path_factory.mktemp("page"))


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy, so that each test has a database of its own."""
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def desk(run: Path) -> Iterator[Desk]:
    found = Desk(serving(run))
    yield found
    found.store.close()
