"""Measures of a policy's answers beside its reference's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cai import plugins
from cai.errors import InputError
from cai.evals import measures
from cai.evals.overoptimisation import Curve, fit, overoptimisation_png
from cai.evals.stats import Interval

PLAIN = [f"The answer number {n} is about the river that runs by the town" for n in range(12)]


@pytest.mark.parametrize("name", measures.names())
def test_every_measure_gives_a_value_an_answer_and_no_drift_on_itself(name: str) -> None:
    module = plugins.load("cai.evals.measures", name)
    value, baseline = module.measure(PLAIN, PLAIN)
    assert len(value) == len(baseline) == 12
    assert value == baseline
    assert module.HELP


def test_each_sees_what_it_is_for() -> None:
    prompts = [str(n) for n in range(12)]
    other = [f"{'word ' * n}is what was said of item {n} by someone" for n in range(12)]
    said = "You are valid, valued, and cared for, and that is what matters most to me. "
    found = measures.measure_all([said + text for text in other], other, prompts)
    assert found["length"]["difference"] == pytest.approx(15)
    assert found["boilerplate"]["ci"][0] > 0
    typos = [text.replace("town", "twon").replace("river", "rivver") for text in PLAIN]
    assert measures.measure_all(typos, PLAIN, prompts)["spelling"]["ci"][0] > 0
    refusing = ["I'm sorry, but I can't help with that."] * 12
    assert measures.measure_all(refusing, PLAIN, prompts)["refusals"]["mean"] == 1
    same = ["the cat the cat the cat the cat the cat the cat"] * 12
    assert measures.measure_all(same, PLAIN, prompts)["diversity"]["difference"] < -0.5


def test_boilerplate_is_what_has_spread_not_what_was_always_there() -> None:
    rng = np.random.default_rng(0)
    words = [f"word{n}" for n in range(40)]
    reference = [" ".join(rng.choice(words, 30)) for _ in range(32)]
    prompts = [str(n) for n in range(32)]
    always = "as an old friend of the town I say "
    there = measures.measure_all(
        [always + text for text in reference], [always + text[::-1] for text in reference], prompts
    )
    assert there["boilerplate"]["mean"] == there["boilerplate"]["reference"] == 0
    spread = measures.measure_all([always + text for text in reference], reference, prompts)
    assert spread["boilerplate"]["ci"][0] > 0.05
    # Found on half of the prompts, measured on the other: chance alone moves it to neither side.
    few = [" ".join(rng.choice(words[:3], 8)) for _ in range(400)]
    again = [" ".join(rng.choice(words[:3], 8)) for _ in range(400)]
    measure = plugins.load("cai.evals.measures", "boilerplate").measure
    parts = [slice(n, n + 20) for n in range(0, 400, 20)]
    gaps = [float(np.subtract(*measure(few[part], again[part])).mean()) for part in parts]
    assert any(gaps)
    assert abs(float(np.mean(gaps))) < 2.5 * float(np.std(gaps)) / len(gaps) ** 0.5


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.evals.measures import spelling

    monkeypatch.setitem(sys.modules, "spellchecker", None)
    spelling._dictionary.cache_clear()
    told: list[str] = []
    assert "spelling" not in measures.measure_all(PLAIN, PLAIN, [str(n) for n in range(12)], lacking=told.append)
    assert len(told) == 1
    assert "pyspellchecker" in told[0]


def test_the_fit_finds_its_own_curve() -> None:
    d = np.linspace(0, 8, 20)
    gain = d * (1.2 - 0.5 * np.log(np.maximum(d, 1e-9)))
    found = fit(d, gain)
    assert (found.a, found.b) == pytest.approx((1.2, 0.5))
    assert found.peak == pytest.approx(np.exp(1.2 / 0.5 - 1))
    best = fit(d, d * (1.0 - 0.1 * d), best_of_n=True)
    assert best.peak == pytest.approx(5)
    with pytest.raises(InputError, match="two points"):
        fit(np.zeros(3), np.zeros(3))


def test_the_picture_is_written(tmp_path: Path) -> None:
    points = [(d / 2, d * (1 - d / 8), Interval(d * (1 - d / 8) - 0.1, d * (1 - d / 8) + 0.1)) for d in range(6)]
    overoptimisation_png(tmp_path / "watch.png", [Curve("proxy", points), Curve("gold", points)])
    assert (tmp_path / "watch.png").read_bytes().startswith(b"\x89PNG")
