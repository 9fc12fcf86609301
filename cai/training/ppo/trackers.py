"""PPO's figures to the usual trackers, by accelerate; what TRL's `report_to` is to the other algorithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cai.errors import InputError, MissingDependency


def check_trackers(names: Sequence[str], folder: Path) -> None:
    """Trackers that accelerate knows and finds installed.

    Raises:
        InputError: no such tracker.
        MissingDependency: its package is not installed.
    """
    from accelerate.tracking import filter_trackers

    for name in names:
        try:
            found = filter_trackers([name], str(folder))
        except ValueError as error:
            raise InputError(str(error), where="train.ppo.settings.report_to") from error
        if not found:
            raise MissingDependency(f"the tracker {name} is not installed", mend=f"pip install {name}")


def flat(told: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested figures or settings as one level, `kl/coefficient`, of plain values, which all trackers take."""
    found: dict[str, Any] = {}
    for key, value in told.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{above}{key}/")
        else:
            found[f"{above}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return found
