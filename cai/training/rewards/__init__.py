"""Rewards: one kind a file, found by name, with `Config` and `build(config, tools)`; several are combined by weights.

A reward may have the attributes `doubt`: why it should not be trained on, "" where nothing speaks against it; `id`, a
hash of all that its scores depend on; `measure`, the same for all that differ by shift and scale alone, where these
are options; `origin`, which says in `lineage.json` what they rest on; and a method `check(prompts)`, called before
anything is loaded, which raises `InputError` where answers to one of these prompts cannot be scored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai.engine import Generate
from cai.errors import InputError

Ask = Callable[[Sequence[Callable[[Generate], Any]]], list[Any]]
"""Runs coroutines that await `generate` to their end, all at once, and gives their results in order.

Raises what the first of them raised."""


@dataclass(frozen=True)
class Tools:
    """What a reward can be built with, from the composition root.

    Attributes:
        seed: of the run.
        folder: what relative paths in options are relative to, those of judges' prompt files too.
        ask: by backend's name in the recipe (`judge`, ...): runs coroutines with that model behind every role.
        fingerprint: of the model behind such a name.
        reward_model: the checkpoint that the run's `train rm` made, if it did.
    """

    seed: int
    folder: Path
    ask: Callable[[str], Ask]
    fingerprint: Callable[[str], str]
    reward_model: Path | None = None

    def path(self, text: str) -> Path:
        """A path from options."""
        given = Path(text).expanduser()
        return given if given.is_absolute() else self.folder / given

    def no_model(self) -> InputError:
        return InputError("there is no reward model", mend="run `cai train rm` first, or give its folder")
