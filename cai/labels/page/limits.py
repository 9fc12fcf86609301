"""Limits on how often somebody may ask: buckets that refill, and never more of them than fit."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

MOST_KEYS = 10_000


class Limits:
    """A bucket a key: `rate` requests a second, `burst` at once.

    Of more than `MOST_KEYS` keys the one that has not asked for longest is forgotten, never all of them: a flood of new
    keys must not refill the buckets of those who are held back.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, key: str) -> bool:
        now = time.monotonic()
        left, last = self._left.get(key, (float(self.burst), now))
        left = min(self.burst, left + (now - last) * self.rate)
        self._left[key] = (max(0.0, left - 1), now)
        self._left.move_to_end(key)
        if len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)
        return left >= 1


def network(address: str) -> str:
    """What a bucket is kept for: an IPv4 address, or the /64 that one IPv6 subscriber has whole."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return plain(address)


def plain(address: str) -> str:
    """An address in its usual spelling; an IPv4 address that came in IPv6's clothes without them."""
    try:
        found = ipaddress.ip_address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    return str(getattr(found, "ipv4_mapped", None) or found)
