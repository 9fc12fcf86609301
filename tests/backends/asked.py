"""One request to a server by the openai backend, for its tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cai.backends.openai import Config, build
from cai.engine import Completion, Request, Sampling
from cai.errors import BackendError
from cai.records import Message
from tests.backends.troubled import Action, Server


def ask(prompt: Any = None, seed: int = 7, **sampling: Any) -> Request:
    return Request(prompt or (Message("system", "Be kind."), Message("user", "Hello")), Sampling(**sampling), seed)


def answer(server: Server, request: Request | None = None, **options: Any) -> Completion:
    async def main() -> Completion:
        backend = build(Config(**{"url": server.url, "model": "small", **options}), seed=0)
        try:
            async with asyncio.timeout(30):
                return await backend.generate(request or ask())
        finally:
            await backend.close()

    return asyncio.run(main())


def failure(server: Server, act: Action, **options: Any) -> BackendError:
    server.act = lambda request, number: act
    with pytest.raises(BackendError) as caught:
        answer(server, **options)
    assert len(server.asked) == 1, "asking again is the engine's part"
    return caught.value
