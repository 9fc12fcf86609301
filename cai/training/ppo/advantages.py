"""From rewards and values to advantages. All tensors are (rows, tokens); `mask` is 1 on the tokens of the response."""

from __future__ import annotations

from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask` is 1; 0 if it nowhere is."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the returns that the value function is fitted to.

    Schulman et al. 2015 (arXiv 1506.02438), eq. 11, 12 and 16; for a response of T tokens, with V_T = 0 behind the
    last:

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t     = delta_t + gamma lam A_{t+1}
        R_t     = A_t + V_t

    Responses begin in the first column and end where their mask does. What stands behind is 0 in both results and has
    no influence, whatever it holds. A response cut off by the token limit ends like any other: what follows it is
    unknown, and a limit that is part of the task is no reason to credit more than what was earned.

    Args:
        gamma: discount; 1 for language models, where the score comes once, at the end.
        lam: 1: Monte Carlo returns, without bias; 0: one step, with the least variance.
    """
    mask = mask.to(values.dtype)
    values, rewards = values.masked_fill(mask == 0, 0), rewards.masked_fill(mask == 0, 0)
    advantages = values.new_zeros(values.shape)
    last = values.new_zeros(values.shape[0])
    after = values.new_zeros(values.shape[0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * after - values[:, t]
        last = (delta + gamma * lam * last) * mask[:, t]
        advantages[:, t] = last
        after = values[:, t]
    return advantages, (advantages + values) * mask


def whiten(x: Tensor, mask: Tensor, *, shift: bool = True, epsilon: float = 1e-8) -> Tensor:
    """`x` with variance 1 and, with `shift`, mean 0, over all tokens under the mask; 0 elsewhere.

    x' = (x - mean) / sqrt(var + epsilon), + mean where not shifted. Rewards keep their mean: to move it would pay or
    charge for each token written (Huang et al. 2024, arXiv 2403.17031, detail 17).
    """
    mask = mask.to(x.dtype)
    count = mask.sum()
    if count < 2:
        return x * mask
    mean = (x * mask).sum() / count
    variance = ((x - mean).square() * mask).sum() / (count - 1)
    scaled = (x - mean) * (variance + epsilon).rsqrt()
    return (scaled if shift else scaled + mean) * mask
