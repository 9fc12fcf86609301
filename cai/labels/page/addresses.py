"""Under which addresses the page is to be had, and how a link is written."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from cai.labels.page.limits import plain

EVERYWHERE = ("0.0.0.0", "::")
_NOWHERE = {socket.AF_INET: ("192.0.2.1", 9), socket.AF_INET6: ("2001:db8::1", 9)}
"""Addresses kept for documentation: to connect a datagram socket to one sends nothing, but chooses a source."""


def link(host: str, port: int, token: str = "") -> str:
    """The page's link, with somebody's token where one is given."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"#token={token}" if token else "")


def reached_by(host: str) -> list[str]:
    """Names and addresses under which what listens on `host` can be asked for, the best to give away first."""
    if host not in EVERYWHERE:
        return [host]
    kinds = [socket.AF_INET] if host == "0.0.0.0" else [socket.AF_INET6, socket.AF_INET]
    found = [address for kind in kinds if (address := _own(kind))]
    name = socket.gethostname()
    with contextlib.suppress(OSError):
        for kind, _, _, _, socket_name in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            if kind in kinds:
                found.append(plain(str(socket_name[0])))
    kept = [each for each in dict.fromkeys(found) if not ipaddress.ip_address(each).is_loopback]
    return [*kept, name.lower(), "127.0.0.1" if host == "0.0.0.0" else "::1"]


def _own(kind: socket.AddressFamily) -> str:
    """The address from which this machine speaks to others; "" where it speaks to none."""
    with contextlib.suppress(OSError), socket.socket(kind, socket.SOCK_DGRAM) as prober:
        prober.connect(_NOWHERE[kind])
        return plain(str(prober.getsockname()[0]))
    return ""
