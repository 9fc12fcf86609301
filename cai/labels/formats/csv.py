"""CSV with our own column names; `verdict` is of the order shown (left, right, tie, both_bad, abstain)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai.labels.formats._own import CARRIES, labelled, notes, read, task

NAME = "csv"
DESCRIPTION = (
    "CSV: pair_id, order, prompt, left, right, then annotator, verdict, strength, axis, seconds, note to fill in."
)
SUFFIX = "csv"
Row = Mapping[str, Any]

__all__ = ["CARRIES", "DESCRIPTION", "NAME", "SUFFIX", "labelled", "notes", "read", "task"]
