"""When a training is stopped: not by noise, and in time where gold falls while the proxy rises."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cai.errors import InputError
from cai.records import Messages, Prompt
from cai.training.base import Reward
from cai.training.watch import Look, Watch, WatchConfig, judge_looks

PROMPTS = 32


def looks(means: Sequence[float], *, seed: int, noise: float = 1.0, scores: int = 1) -> list[Look]:
    rng = np.random.default_rng(seed)
    own = rng.normal(size=PROMPTS)  # prompts differ from one another more than looks do
    found = []
    for step, mean in enumerate(means):
        gold = {f"gold{number or ''}": tuple(mean + own + noise * rng.normal(size=PROMPTS)) for number in range(scores)}
        proxy = 0.1 * step + own + noise * rng.normal(size=PROMPTS)
        found.append(Look(step, float(step), tuple(proxy), gold))
    return found


def ended(found: list[Look]) -> tuple[bool, int]:
    for count in range(1, len(found) + 1):
        told = judge_looks(found[:count], planned=len(found))
        if told.stop:
            return True, told.best
    return False, judge_looks(found, planned=len(found)).best


@pytest.mark.parametrize(("scores", "trainings"), [(1, 200), (16, 100)])
def test_noise_alone_hardly_ever_stops_a_training(scores: int, trainings: int) -> None:
    stopped = sum(ended(looks([0.0] * 21, seed=seed, scores=scores))[0] for seed in range(trainings))
    assert stopped <= trainings // 20


def test_a_peak_is_found_and_the_best_look_is_near_it() -> None:
    curve = [1.5 * np.sin(np.pi * step / 16) for step in range(30)]  # highest at 8, back at the start at 16
    for seed in range(20):
        stopped, best = ended(looks(curve, seed=seed, noise=0.7))
        assert stopped
        assert 3 <= best <= 13


def test_a_falling_proxy_is_no_over_optimisation() -> None:
    found = [
        Look(look.step, look.kl, tuple(-value for value in look.proxy), look.gold)
        for look in looks([-0.5 * step for step in range(10)], seed=0, noise=0.1)
    ]
    falling = [Look(x.step, x.kl, tuple(p - x.step for p in x.proxy), x.gold) for x in found]
    assert not ended(falling)[0]


def test_a_training_that_goes_on_behind_a_stop_is_compared_with_its_later_looks() -> None:
    found = looks([0, 1.0, 0.2, 0.2, 2.0, 2.5], seed=0, noise=0.01)
    told = judge_looks(found[:4], planned=6)
    assert (told.stop, told.best) == (True, 1)
    later = judge_looks(found, planned=6)
    assert (later.stop, later.best) == (True, 5)
    assert later.why == told.why


class Length:
    name = "length"

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return [float(len(answer)) for answer in answers]


def test_looks_are_kept_and_a_resumed_training_goes_on_with_them(tmp_path: Path) -> None:
    prompts = [Prompt.make(f"say {n}") for n in range(6)]
    config = WatchConfig(every=5, prompts=4)
    watch = Watch(tmp_path, config, prompts, total=20, proxy=Length(), gold={"short": Length()})
    assert [step for step in range(21) if watch.due(step)] == [0, 5, 10, 15, 20]
    watch.look(0, ["a b c d"] * 4, kl=0.0, entropy=[2.0] * 4)
    watch.look(5, ["a b c d e"] * 4, kl=0.5, entropy=[1.5] * 4)
    again = Watch(tmp_path, config, prompts, total=20, proxy=Length(), gold={"short": Length()})
    assert [look.step for look in again.looks] == [0, 5]
    assert not again.due(5)
    assert again.looks[1].measures["length"]["difference"] == 1
    assert again.looks[1].measures["entropy"]["difference"] == -0.5
    assert again.summary()["last"]["proxy"] == 9
    again.draw(tmp_path / "watch.png")
    assert (tmp_path / "watch.png").is_file()
    assert not Watch(tmp_path, WatchConfig(prompts=0), prompts, total=20, proxy=Length()).due(0)


def watch(folder: Path, held: int, *, proxy: Reward | None = None, gold: Reward | None = None, **more: Any) -> Watch:
    told: list[str] = []
    config = WatchConfig(**({"every": 0, "prompts": 4} | more))
    given = [Prompt.make(f"say {n}") for n in range(held)]
    golds = {"short": gold} if gold else {}
    found = Watch(folder, config, given, total=20, proxy=proxy, gold=golds, say=told.append)
    assert told == ([found.lack()] if found.lack() else [])
    return found


def test_what_is_not_watched_is_said(tmp_path: Path) -> None:
    assert "no prompts are held out" in watch(tmp_path, 0, gold=Length()).lack()
    assert "no `gold` score" in watch(tmp_path, 6).lack()
    assert "3 held-out prompts are too few" in watch(tmp_path, 3, gold=Length()).lack()
    for fine in (
        watch(tmp_path, 6, gold=Length()),
        watch(tmp_path, 6, proxy=Length()),
        watch(tmp_path, 6, every=5),  # KL and style, as asked
        watch(tmp_path, 0, prompts=0),
    ):
        assert fine.lack() == ""


def test_what_speaks_against_a_gold_score_is_said(tmp_path: Path) -> None:
    class Doubtful(Length):
        doubt = "it is right on 50.0% of 40 held-out pairs"

    told: list[str] = []
    prompts = [Prompt.make(f"say {n}") for n in range(6)]
    Watch(tmp_path, WatchConfig(), prompts, total=20, proxy=None, gold={"rm": Doubtful()}, say=told.append)
    assert told == [f"the gold score rm may not be fit to watch by: {Doubtful.doubt}"]


def test_without_any_score_looks_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    assert not watch(tmp_path, 6).due(0)
    asked = watch(tmp_path, 6, every=5)
    assert asked.due(5)
    for step in (0, 5):
        told = asked.look(step, ["a b c d"] * 4, kl=0.0, entropy=[2.0] * 4)
        assert not told.stop
        assert told.best == step
    assert "proxy" not in asked.summary()["last"]
    asked.draw(tmp_path / "watch.png")  # nothing to draw


def test_without_a_proxy_a_clear_fall_is_told_without_one() -> None:
    found = [Look(x.step, x.kl, (), x.gold) for x in looks([0, -2, -2, -2], seed=0, noise=0.1)]
    told = judge_looks(found, planned=4)
    assert told.stop
    assert "gold fell by 2" in told.why
    assert "proxy" not in told.why


@pytest.mark.parametrize("change", ["prompts", "gold", "proxy", "max_tokens"])
def test_looks_of_another_watch_are_refused(tmp_path: Path, change: str) -> None:
    first = watch(tmp_path, 6, proxy=Length(), gold=Length())
    first.look(0, ["a b c d"] * 4, kl=0.0, entropy=[2.0] * 4)
    assert watch(tmp_path, 6, proxy=Length(), gold=Length(), every=3, stop=False).looks

    class Other(Length):
        id = "another length"

    changes: dict[str, dict[str, Any]] = {
        "prompts": {"prompts": 3},
        "gold": {"gold": Other()},
        "proxy": {"proxy": Other()},
        "max_tokens": {"max_tokens": 7},
    }
    with pytest.raises(InputError, match="other watched prompts, scores or lengths"):
        watch(tmp_path, 6, **({"proxy": Length(), "gold": Length()} | changes[change]))
