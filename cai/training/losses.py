"""Losses on soft labels. With p in {0, 1} they are TRL's own, value and gradient (tested)."""

from __future__ import annotations

from typing import Any


def soft_cross_entropy(difference: Any, p: Any) -> Any:
    """-p log s(d) - (1 - p) log s(-d), per pair: cross-entropy of the Bradley-Terry model on a soft label.

    For a reward model d = r(first) - r(second) (Lee et al. 2023, arXiv 2309.00267, section 3.1.2; Christiano 2017,
    eq. 1); for DPO d = h, beta times the difference of the two log-ratios to the reference (Rafailov et al. 2023, arXiv
    2305.18290, eq. 7; with label noise eq. 3 of Mitchell's "A note on DPO with noisy preferences").

    Args:
        difference, p: tensors of the shape (pairs,).

    Returns:
        Shape (pairs,). Its least value over d is the label's entropy, at s(d) = p.
    """
    from torch.nn.functional import logsigmoid

    return -p * logsigmoid(difference) - (1 - p) * logsigmoid(-difference)


def grouped(loss: Any, weight: Any, elements: int) -> Any:
    """One number of a batch: sum over pairs of weight x loss, over the number of its elements.

    A pair's weight is 1 / C(K, 2) of its group times its source's weight, so that every group counts alike
    (InstructGPT, arXiv 2203.02155, eq. 1). With one pair an element and weights of 1 it is the mean.
    """
    return (weight * loss).sum() / elements
