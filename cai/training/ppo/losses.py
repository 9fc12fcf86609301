"""PPO's two losses, clipped, and what is read from logits. Tensors are (rows, tokens); `mask` is 1 on response
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """Sums over the tokens under the mask, so that parts of a batch add up: divide by the batch's tokens.

    Attributes:
        loss: to be minimised.
        ratio: of the new to the old probability.
        clipped: tokens where clipping took effect (and so the gradient is 0).
        kl: Schulman's k3 estimate of KL(old || new), (ratio - 1) - log ratio: how far this update has moved.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor
    kl: Tensor


def policy_loss(new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *, clip: float) -> PolicyLoss:
    """The clipped surrogate objective, negated.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7, with r_t = exp(log pi_new - log pi_old):

        L_t = -min(r_t A_t, clamp(r_t, 1 - clip, 1 + clip) A_t)
    """
    log_ratio = (new - old) * mask
    ratio = log_ratio.exp()
    free = -advantages * ratio
    held = -advantages * ratio.clamp(1 - clip, 1 + clip)
    loss = (torch.maximum(free, held) * mask).sum()
    with torch.no_grad():
        clipped = ((held > free) * mask).sum()
        kl = (((ratio - 1) - log_ratio) * mask).sum()
        ratios = (ratio * mask).sum()
    return PolicyLoss(loss, ratios, clipped, kl)


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None) -> tuple[Tensor, Tensor]:
    """Half the squared error of the values, and the number of tokens where clipping took effect; sums over the mask.

    As in the code of Schulman et al. 2017 (their paper does not print it; Engstrom et al. 2020, arXiv 2005.12729,
    section 3, does), the new value may leave the old one by at most `clip`:

        L_t = 1/2 max((V_t - R_t)^2, (clamp(V_t, V_t^old - clip, V_t^old + clip) - R_t)^2)

    Args:
        clip: None: plain squared error.
    """
    free = (new - returns).square()
    if clip is None:
        return (free * mask).sum() / 2, torch.zeros((), device=new.device)
    held = (torch.clamp(new, old - clip, old + clip) - returns).square()
    clipped = ((held > free) * mask).sum()
    return (torch.maximum(free, held) * mask).sum() / 2, clipped


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log softmax(logits)[token], in float32: logits (rows, tokens, vocabulary), tokens (rows, tokens)."""
    logits = logits.float()
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - logits.logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Of each token's distribution, in nats: log Z - sum p x, for logits x."""
    logits = logits.float()
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)
