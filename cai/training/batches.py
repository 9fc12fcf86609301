"""From encoded elements to the tensors of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class PairCollator:
    """Pads the sequences of a batch's elements into one block; pairs name their rows in it.

    Returns tensors: `input_ids`, `attention_mask`, `completion_mask` of shape (rows, longest), padded on the right;
    `first`, `second`, `p`, `weight` of shape (pairs,); `ref` of shape (rows,) where the reference's sums of log-
    probabilities were computed before; and `elements`, how many there are.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, elements: Sequence[dict[str, Any]]) -> dict[str, Any]:
        import torch

        rows: list[tuple[list[int], int]] = []
        first: list[int] = []
        second: list[int] = []
        p: list[float] = []
        weight: list[float] = []
        ref: list[float] = []
        for element in elements:
            offset = len(rows)
            prompt = list(element["prompt_ids"])
            rows += [(prompt + list(ids), len(prompt)) for ids in element["completion_ids"]]
            first += [offset + k for k in element["first"]]
            second += [offset + k for k in element["second"]]
            p += element["p"]
            weight += element["weight"]
            ref += element.get("ref") or []
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), self.pad)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        completion = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, (row, start) in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
            completion[number, start : len(row)] = 1
        batch = {
            "input_ids": ids,
            "attention_mask": mask,
            "completion_mask": completion,
            "first": torch.tensor(first),
            "second": torch.tensor(second),
            "p": torch.tensor(p, dtype=torch.float32),
            "weight": torch.tensor(weight, dtype=torch.float32),
            "elements": torch.tensor(len(elements)),
        }
        return batch | ({"ref": torch.tensor(ref, dtype=torch.float32)} if ref else {})
