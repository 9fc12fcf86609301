"""The reliability diagram is written, whole, and says so where it cannot be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cai.errors import MissingDependency
from cai.evals import stats
from cai.evals.plot import Curve, reliability_png


def curve(name: str) -> Curve:
    p, y = [0.2, 0.4, 0.6, 0.9], [0.0, 1.0, 1.0, 1.0]
    return Curve(name, stats.reliability(p, y, list("abcd"), seed=0, bins=4), 4, stats.ece(p, y))


def test_a_png(tmp_path: Path) -> None:
    path = tmp_path / "r.png"
    reliability_png(path, [curve("raw"), curve("temperature")], title="a judge")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [each.name for each in tmp_path.iterdir()] == ["r.png"]


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install '\.\[eval\]' in the folder of cai's source"):
        reliability_png(tmp_path / "r.png", [curve("raw")])
    assert not list(tmp_path.iterdir())
