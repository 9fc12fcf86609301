"""What a killed run resumes from: one folder a state, safetensors and JSON, complete or not there at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cai.errors import RunError
from cai.store import disk_error, encode, read_rows, replacing, write_json

STATE = "state.json"
NAME = "update-{:07d}"

Named = Sequence[tuple[str, nn.Parameter]]


def save(
    folder: Path, *, update: int, tensors: dict[str, Tensor], optimizer: dict[str, Tensor], told: dict[str, Any]
) -> Path:
    """Write the state after `update` updates, then remove older ones.

    Raises:
        StoreError: the disk is full.
    """
    from safetensors.torch import save_file

    final = folder / NAME.format(update)
    temporary = folder / f".{final.name}.new"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / "weights.safetensors")
        save_file(optimizer, temporary / "optimizer.safetensors")
        for name in ("weights.safetensors", "optimizer.safetensors"):
            with (temporary / name).open("rb") as file:
                os.fsync(file.fileno())
        write_json(temporary / STATE, {"update": update, **told})
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
    except OSError as error:
        raise disk_error(error, final) from error
    for old in _all(folder):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _all(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"update-*/{STATE}"))


def newest(folder: Path) -> Path | None:
    """The newest complete state, or None."""
    found = _all(folder)
    return found[-1] if found else None


def load(path: Path, *, inputs: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """What `save` wrote: what was told, weights, optimiser.

    Args:
        inputs: what the training depends on, by name; a state of another one is refused.

    Raises:
        RunError: it was begun with other options, or cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        told: dict[str, Any] = json.loads((path / STATE).read_text("utf-8"))
        before = {**inputs, **told.get("inputs", {})}  # what an older state does not tell, it does not bind
        if differing := [name for name, value in inputs.items() if before[name] != value]:
            raise RunError(
                f"a training with another {', '.join(differing)} was begun here",
                where=str(path),
                mend="--fresh begins anew and keeps what its rewards have asked, --out trains beside it",
            )
        return told, load_file(path / "weights.safetensors"), load_file(path / "optimizer.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(
            f"cannot be read: {error}", where=str(path), mend="delete this folder: training begins anew"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, named: Named) -> dict[str, Tensor]:
    """The state of Adam as `<parameter>/<what>`, copies on the CPU."""
    return {
        f"{name}/{what}": torch.as_tensor(value).detach().to("cpu", copy=True)
        for name, parameter in named
        for what, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, named: Named, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    own = dict(named)
    for key, value in tensors.items():
        name, _, what = key.rpartition("/")
        optimizer.state[own[name]][what] = value.to(own[name].device)


def trim_metrics(path: Path, update: int) -> None:
    """Drop the lines behind `update`: those updates are made again."""
    if not path.exists():
        return
    rows = [row for row in read_rows(path) if row.get("update", 0) <= update]
    with replacing(path) as file:
        for row in rows:
            file.write(encode(row))
