"""Watching a training: proxy reward, gold measures and KL on a fixed prompt set, and when to stop.

Over-optimisation shows as a proxy that rises while what it stands for falls (Gao et al. 2022, arXiv 2210.10760). Each
look takes the policy's answers to the same held-out prompts. The rule is statistical, not a count of looks below the
best, which would stop half of all noise: training stops when the mean paired difference (by prompt) of a gold score
between this look and the best look so far has its whole interval below 0, at a level shared out over all gold scores
and all looks that the training will have (Bonferroni), while the proxy has not fallen, in two looks running. The
checkpoint of the best look is the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from cai.errors import InputError
from cai.evals import stats
from cai.processes import main_process
from cai.records import Messages, Prompt, content_hash
from cai.store import Log, read_rows
from cai.training.base import Reward
from cai.yamlfile import StrictModel

LEAST_PROMPTS = 4  # for a paired test to mean anything
LOOKS, REFERENCE, BEST = "watch.jsonl", "watch-reference.json", "best.safetensors"


class WatchConfig(StrictModel):
    """What a recipe can say of watching."""

    every: int = Field(
        0,
        ge=0,
        description="Updates or steps between two looks; 0: twenty in all, none where there is no score to watch.",
    )
    prompts: int = Field(32, ge=0, description="Held-out prompts, always the same ones; 0: no watching.")
    max_tokens: int = Field(128, ge=1)
    temperature: float = Field(1.0, ge=0)
    stop: bool = Field(True, description="Stop where the proxy does not fall and a gold score clearly does.")
    level: float = Field(0.05, gt=0, lt=1, description="Probability that noise alone stops a training.")

    def taken(self, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
        """Those of the held-out prompts that are watched, the first by id."""
        return tuple(sorted(prompts, key=lambda prompt: prompt.id)[: self.prompts])

    def interval(self, total: int) -> int:
        """Steps between two looks of a training of `total` steps."""
        return self.every or max(1, -(-total // 20))

    def looks(self, total: int) -> int:
        """Looks that such a training has, the one before it among them."""
        return 1 + -(-total // self.interval(total))


@dataclass(frozen=True)
class Look:
    """What was seen at one step.

    Attributes:
        kl: mean KL to the reference in nats an answer.
        proxy, gold: a score a prompt, in the order of the watched prompts; gold by name; no proxy: empty.
        measures: summaries of the answers, by name (see `cai.evals.measures`).
    """

    step: int
    kl: float
    proxy: tuple[float, ...]
    gold: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        return {
            "step": str(self.step),
            "kl": self.kl,
            "proxy": list(self.proxy),
            "gold": {name: list(values) for name, values in self.gold.items()},
            "measures": dict(self.measures),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Look:
        gold = {name: tuple(values) for name, values in row["gold"].items()}
        return cls(int(row["step"]), row["kl"], tuple(row["proxy"]), gold, row["measures"])


@dataclass(frozen=True)
class Verdict:
    """What a look says of the training: whether to stop, which step is the best so far, and why."""

    stop: bool
    best: int
    why: str = ""


def judge_looks(looks: Sequence[Look], *, planned: int, level: float = 0.05) -> Verdict:
    """The stop rule on all looks so far, in the order of their steps; see the module.

    The best look is the one with the highest mean over the gold scores' standardised values, or over the proxy where
    there is no gold; then nothing stops, since a proxy cannot tell on itself. A training that goes on behind a stop may
    have a better one yet; the verdict stays.
    """
    if not looks:
        return Verdict(False, 0)
    best = looks[0]
    falls = 0
    stop = ""
    for look in looks[1:]:
        fallen = _fallen(best, look, level / max(1, planned - 1))
        falls = falls + 1 if fallen else 0
        if falls >= 2:
            stop = stop or fallen
        if _better(best, look):
            best = look
    return Verdict(bool(stop), best.step, stop)


def _better(best: Look, look: Look) -> bool:
    pairs = [(look.gold[name], best.gold[name]) for name in look.gold if name in best.gold]
    if not pairs and not look.proxy:  # nothing is scored: the last is as good as any
        return True
    pairs = pairs or [(look.proxy, best.proxy)]
    gains = []
    for new, old in pairs:
        gap = np.asarray(new) - np.asarray(old)
        spread = float(np.std(np.concatenate([new, old]))) or 1.0
        gains.append(float(gap.mean()) / spread)
    return sum(gains) / len(gains) > 0


def _fallen(best: Look, look: Look, level: float) -> str:
    """Which gold score has clearly fallen while the proxy, where there is one, has not; "" where none."""
    proxy = float(np.mean(look.proxy) - np.mean(best.proxy)) if look.proxy else 0.0
    if proxy < 0:
        return ""
    tested = {name: new for name, new in look.gold.items() if name in best.gold and len(new) >= LEAST_PROMPTS}
    for name, new in tested.items():
        old, n = best.gold[name], len(new)
        gap = np.asarray(new) - np.asarray(old)
        spread = float(gap.std(ddof=1))
        mean = float(gap.mean())
        if mean + (_t(1 - level / len(tested), n - 1) * spread / n**0.5 if spread else 0.0) < 0:
            told = f"{name} fell by {-mean:.3f} since step {best.step}"
            return f"{told} while the proxy rose by {proxy:.3f}" if look.proxy else told
    return ""


@cache
def _t(q: float, df: int) -> float:
    from scipy.stats import t

    return float(t.ppf(q, df))


def _silent(text: str) -> None:
    """Tells nobody."""


def forget_looks(folder: Path) -> None:
    """Remove the looks of steps that were not kept, before a training begins: they may be another's."""
    for name in (LOOKS, REFERENCE, BEST):
        (folder / name).unlink(missing_ok=True)


def kept_step(path: Path) -> int | None:
    """The step whose weights a file of the best look's holds; None where there is none."""
    from safetensors import safe_open

    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        return int((file.metadata() or {}).get("step", -1))


class Watch:
    """The looks of one training, kept in `watch.jsonl` so that a resumed training goes on with them.

    Args:
        folder: of the training.
        prompts: the watched ones; `config.prompts` of them are used, the first by id.
        total: steps that the training will have.
        say: is told what cannot be watched, and why, and what speaks against a gold score.

    Raises:
        InputError: the looks in the folder are of other prompts or scores: they cannot be compared with new ones.
    """

    def __init__(
        self,
        folder: Path,
        config: WatchConfig,
        prompts: Sequence[Prompt],
        *,
        total: int,
        proxy: Reward | None,
        gold: Mapping[str, Reward] | None = None,
        say: Callable[[str], None] = _silent,
    ) -> None:
        self.config = config
        self.path = folder / LOOKS
        self.prompts = config.taken(prompts)
        self.total = total
        self._proxy = proxy
        self._gold = dict(gold or {})
        self._reference: dict[str, Any] | None = None
        self._say = say
        self._key = content_hash(
            [prompt.id for prompt in self.prompts],
            [config.max_tokens, config.temperature],
            _id(proxy),
            {name: _id(reward) for name, reward in self._gold.items()},
        )
        self.looks: list[Look] = []
        if main_process():  # which alone looks and decides
            self._read()
            for name, reward in self._gold.items() if self.on else ():
                if doubt := getattr(reward, "doubt", ""):
                    say(f"the gold score {name} may not be fit to watch by: {doubt}")
            if lack := self.lack():
                say(lack)

    def _read(self) -> None:
        if not self.on or not self.path.is_file():
            return
        for row in read_rows(self.path):
            if row.get("watched") != self._key:
                raise InputError(
                    "these looks are of other watched prompts, scores or lengths than the recipe's",
                    where=str(self.path),
                    mend="restore `watch`, `gold` and the reward, or begin anew with --fresh",
                )
            self.looks = [look for look in self.looks if look.step != int(row["step"])]
            self.looks.append(Look.from_row(row))
        self.looks.sort(key=lambda look: look.step)

    def lack(self) -> str:
        """What is not watched although it was not switched off, and why; "" where nothing."""
        if not self.config.prompts:
            return ""
        if not self.prompts:
            return "not watched: no prompts are held out (sft.test_fraction)"
        if not self.on:
            return "not watched: there is no `gold` score; watch: {every: N} looks at KL and style without one"
        if self._gold and self.config.stop and len(self.prompts) < LEAST_PROMPTS:
            return f"nothing stops it: {len(self.prompts)} held-out prompts are too few ({LEAST_PROMPTS} are needed)"
        return ""

    @property
    def on(self) -> bool:
        """Whether there is anything to watch with."""
        return bool(self.prompts) and (self._proxy is not None or bool(self._gold) or self.config.every > 0)

    def planned(self, step: int) -> bool:
        """Whether a look belongs after `step` steps; 0 is before the first. The same in every process."""
        return self.on and (step % self.config.interval(self.total) == 0 or step == self.total)

    def due(self, step: int) -> bool:
        """Whether it belongs there and was not taken yet."""
        return self.planned(step) and all(look.step != step for look in self.looks)

    def look(self, step: int, answers: Sequence[str], *, kl: float, entropy: Sequence[float]) -> Verdict:
        """Score the policy's answers to `prompts`, keep what was seen, and judge.

        Args:
            answers: one a prompt, in the order of `prompts`.
            kl: mean KL to the reference in nats an answer.
            entropy: of the policy's next token, in nats, the mean over each answer's tokens.

        Raises:
            TrainingError: a score could not be had.
        """
        messages: list[Messages] = [prompt.messages for prompt in self.prompts]
        proxy = self._proxy(messages, answers) if self._proxy is not None else []
        gold = {name: tuple(reward(messages, answers)) for name, reward in self._gold.items()}
        found = Look(step, float(kl), tuple(proxy), gold, self._measures(answers, entropy))
        # A training that is resumed from before a look takes it again: what is behind it is of another branch.
        self.looks = sorted([*(each for each in self.looks if each.step < step), found], key=lambda each: each.step)
        with Log(self.path, key="step") as log:
            log.append({**found.row(), "watched": self._key})
        return self.verdict()

    def verdict(self) -> Verdict:
        """What all looks so far say."""
        told = judge_looks(self.looks, planned=self.config.looks(self.total), level=self.config.level)
        return told if self.config.stop else Verdict(False, told.best, told.why)

    def best_by_gold(self) -> int | None:
        """The best look's step; None where no gold score says which that is. A proxy rises by over-optimisation too."""
        return self.verdict().best if self.looks and self.looks[-1].gold else None

    def _measures(self, answers: Sequence[str], entropy: Sequence[float]) -> dict[str, Any]:
        from cai.evals.measures import beside, measure_all

        if self._reference is None:
            self._reference = _first(self.path.parent / REFERENCE, answers, entropy)
        ids = [prompt.id for prompt in self.prompts]
        lacking = self._say if not self.looks else _silent
        told = measure_all(answers, self._reference["answers"], ids, lacking=lacking)
        return told | {"entropy": beside(entropy, self._reference["entropy"], ids)}

    def summary(self) -> dict[str, Any]:
        """For the card: looks, the best step, and the means at first, at best and at last."""
        if not self.looks:
            return {}
        best = self.verdict().best
        by_step = {look.step: look for look in self.looks}
        ends = {"first": self.looks[0], "best": by_step.get(best, self.looks[0]), "last": self.looks[-1]}
        return {
            "looks": len(self.looks),
            "best_step": best,
            **{
                name: {
                    "step": look.step,
                    "kl": round(look.kl, 4),
                    **({"proxy": round(float(np.mean(look.proxy)), 4)} if look.proxy else {}),
                    "gold": {key: round(float(np.mean(values)), 4) for key, values in look.gold.items()},
                }
                for name, look in ends.items()
            },
        }

    def draw(self, path: Path) -> None:
        """Proxy and gold against sqrt(KL), as a PNG.

        Raises:
            MissingDependency: matplotlib is not installed.
        """
        from cai.evals.overoptimisation import Curve, overoptimisation_png

        def points(values: Any) -> list[tuple[float, float, stats.Interval]]:
            found = []
            for look in self.looks:
                scores = np.asarray(values(look), dtype=np.float64)
                half = 1.96 * float(scores.std(ddof=1)) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
                mean = float(scores.mean())
                found.append((max(0.0, look.kl) ** 0.5, mean, stats.Interval(mean - half, mean + half)))
            return found

        curves = [Curve("proxy", points(lambda look: look.proxy))] if self._proxy is not None else []
        curves += [Curve(name, points(lambda look, name=name: look.gold[name])) for name in self._gold]
        if curves:
            overoptimisation_png(path, curves)


def _id(reward: Reward | None) -> str:
    return str(getattr(reward, "id", getattr(reward, "name", "")))


def _first(path: Path, answers: Sequence[str], entropy: Sequence[float]) -> dict[str, Any]:
    """Answers and entropy before training: those that were kept at the first look, or these."""
    import json

    from cai.store import write_json

    if not path.is_file():
        write_json(path, {"answers": list(answers), "entropy": list(entropy)})
    kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return kept
