"""A folder with a model in Hugging Face format: which model it is, and what its files tell without loading it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from cai.errors import InputError
from cai.records import content_hash
from cai.store import readable

_VOCABULARIES = ("vocab.txt", "merges.txt")
_MEND = "copy or download the model again, with read permission"


def fingerprint(
    folder: Path,
    *,
    dtype: str = "auto",
    chat_template: str | None = None,
    changed: Mapping[str, Any] | None = None,
    older: bool = False,
    code: bool = False,
) -> str:
    """Identity of the weights and tokenizer: equal for a copy of the folder, different after training.

    Hashes the small files whole and of each weight file its size, header and tail, so that it takes milliseconds.

    Args:
        dtype: of the weights. `auto` counts as bfloat16 wherever it runs: the weights are the same, and a run may go
            on on another machine.
        chat_template: its text, where it replaces the model's own.
        changed: what else makes another model of the same files (a quantization, say).
        older: pickled weights count although there are safetensors; else only where there are none.
        code: Python files count, since they are run.

    Raises:
        InputError: no such folder, no model in it, or a file that cannot be read.
    """
    with readable(folder, mend=_MEND):
        found = sorted(folder.iterdir()) if (folder / "config.json").is_file() else []
    if not found:
        raise InputError(
            "no model here (config.json is missing)",
            where=str(folder),
            mend="give the folder of a model in Hugging Face format; `make model` builds the demo's",
        )
    parts: list[Any] = ["bfloat16" if dtype == "auto" else dtype]
    if chat_template is not None:
        parts.append(chat_template)
    if changed:
        parts.append(dict(changed))
    weights = {".safetensors", ".gguf"}
    if older or not any(file.suffix == ".safetensors" for file in found):
        weights |= {".bin", ".pt", ".pth"}
    small = {".json", ".jinja", ".model", ".txt", *((".py",) if code else ())}
    for file in found:
        if file.is_dir() or (file.suffix == ".txt" and file.name not in _VOCABULARIES and not file.exists()):
            continue  # a licence whose link leads nowhere is read by nobody
        with readable(file, mend=_MEND):  # a link into a cache that is gone is one that cannot
            if file.suffix in small:
                parts.append([file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
            elif file.suffix in weights:
                parts.append([file.name, *_sampled(file)])
    return f"{folder.name}@{content_hash(parts, length=12)}"


def _sampled(file: Path) -> tuple[int, str]:
    """Size of a file of weights, and a hash of what stands in 64 places of it."""
    digest = hashlib.sha256()
    with file.open("rb") as weights:
        size = file.stat().st_size
        for place in range(0, size, max(1, size // 64)):  # a fine-tune changes every tensor
            weights.seek(place)
            digest.update(weights.read(4096))
    return size, digest.hexdigest()


def chats(folder: Path) -> bool:
    """Whether the model has a chat template, as far as its files tell: only where they show that there is none, false.

    Raises nothing and loads nothing.
    """
    elsewhere = ("chat_template.jinja", "chat_template.json", "additional_chat_templates", "tekken.json")
    if any((folder / name).exists() for name in elsewhere):
        return True
    try:
        given = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(given, dict) or bool(given.get("chat_template"))


def strftime_now(form: str) -> str:
    """The clock of chat templates, which always says 26 July 2024, the day that Llama 3's own falls back on.

    Some templates write the day into the system turn; by a clock that goes, equal requests would be other prompts
    tomorrow. Given to a tokenizer's `apply_chat_template` under this name, by which templates call it, it replaces
    the library's own.
    """
    return datetime(2024, 7, 26).strftime(form)


def weight_bytes(folder: Path) -> int:
    """Size of the safetensors, in bytes; 0 where there are none."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
