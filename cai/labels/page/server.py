"""The page's server: Starlette, JSON in and out, nothing without a token.

- A person's token comes in the link's fragment, which no server or log sees; the page exchanges it for a cookie that no
  script can read and no other site can send.
- Requests that change something need a JSON body, a header of our own and our own origin; hosts are checked, so that a
  name that was rebound to this machine gets nothing.
- A strict content policy: scripts and styles from here only, none inline; no frames.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cai.errors import CaiError, InputError
from cai.labels.page import desk
from cai.labels.page.store import Store

STATIC = Path(__file__).resolve().parent / "static"
COOKIE = "cai_label"
LARGEST_BODY = 512_000
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True)
class Page:
    """What is served.

    Attributes:
        axes: questions asked of each pair; "" is the overall one.
        guidelines: title and text of each principle.
        hint: show what the AI judge says.
        hosts: names under which the page may be asked for, without port.
    """

    tasks: Sequence[desk.Task]
    mode: desk.Mode
    axes: Sequence[str]
    guidelines: Sequence[tuple[str, str]]
    hint: bool = False
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})


class Limits:
    """A token bucket a key: `rate` requests a second, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self.rate, self.burst = rate, burst
        self._left: dict[str, tuple[float, float]] = {}

    def allow(self, key: str) -> bool:
        now = time.monotonic()
        left, last = self._left.get(key, (float(self.burst), now))
        left = min(self.burst, left + (now - last) * self.rate)
        if len(self._left) > 10_000:
            self._left.clear()
        self._left[key] = (max(0.0, left - 1), now)
        return left >= 1


class _Guard:
    """Headers on every answer, known hosts only, bodies of a bounded size."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(key, value) for key, value in message["headers"] if key.decode("latin-1") not in HEADERS]
                message["headers"] = kept + [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        size = headers.get(b"content-length", b"0")
        if name not in self.hosts:
            await JSONResponse({"error": "unknown host"}, 421)(scope, receive, sending)
        elif not size.isdigit() or int(size) > LARGEST_BODY or b"transfer-encoding" in headers:
            await JSONResponse({"error": "the request is too large"}, 413)(scope, receive, sending)
        else:
            await self.app(scope, receive, sending)


def app(page: Page, store: Store) -> Starlette:
    """The application."""
    by_id = {task.id: task for task in page.tasks}
    store.offer([(task.id, bool(task.gold)) for task in page.tasks])
    requests, failures = Limits(20, 60), Limits(0.2, 20)
    # One thread for the database: transactions follow one another anyway, and the loop goes on answering meanwhile.
    pool = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*arguments))

    def address(request: Request) -> str:
        return request.client.host if request.client else "?"

    async def person(request: Request) -> str:
        token = request.cookies.get(COOKIE, "")
        if not requests.allow(f"{address(request)} {token[:16]}"):
            raise _Refused(429, "too many requests; slow down a little")
        name = await ask(store.who, token) if token else None
        if name is None:
            raise _Refused(401, "open the link you were given")
        return str(name)

    def same_origin(request: Request) -> None:
        origin = request.headers.get("origin")
        own = f"{request.url.scheme}://{request.headers.get('host', '')}"
        json_body = request.headers.get("content-type", "").split(";")[0].strip() == "application/json"
        if (origin is not None and origin != own) or request.headers.get("x-cai") != "1" or not json_body:
            raise _Refused(403, "only the page itself may ask for this")

    async def body(request: Request) -> dict[str, Any]:
        try:
            found = json.loads(await request.body())
        except ValueError as error:
            raise _Refused(400, "the request is not JSON") from error
        if not isinstance(found, dict):
            raise _Refused(400, "the request is not an object")
        return found

    async def told(name: str, task_id: str | None, **more: Any) -> JSONResponse:
        task = by_id.get(task_id or "")
        row = None if task is None else desk.shown(task, name, hint=page.hint)
        return JSONResponse({"task": row, "progress": await ask(store.progress, name), **more})

    async def login(request: Request) -> Response:
        same_origin(request)
        token = str((await body(request)).get("token", ""))
        name = await ask(store.who, token) if token else None
        if name is None:
            if not failures.allow(address(request)):
                raise _Refused(429, "too many wrong links; wait a minute")
            raise _Refused(401, "this link is not valid; ask for a new one")
        response = JSONResponse({"name": name})
        response.set_cookie(
            COOKIE,
            token,
            httponly=True,
            samesite="strict",
            path="/",
            max_age=30 * 86400,
            secure=request.url.scheme == "https",
        )
        return response

    async def start(request: Request) -> Response:
        name = await person(request)
        settings = {"name": name, "mode": page.mode, "axes": list(page.axes)}
        guidelines = [{"title": title, "text": text} for title, text in page.guidelines]
        return JSONResponse({**settings, "guidelines": guidelines, "progress": await ask(store.progress, name)})

    async def following(request: Request) -> Response:
        name = await person(request)
        return await told(name, await ask(store.next, name))

    async def verdict(request: Request) -> Response:
        same_origin(request)
        name = await person(request)
        given = await body(request)
        task = by_id.get(str(given.get("task", "")))
        name_of = given.get("id")
        if task is None or not isinstance(name_of, str) or not 8 <= len(name_of) <= 64:
            raise _Refused(400, "a verdict needs the item's id and one of its own")
        seconds = given.get("seconds")
        if seconds is not None and (not isinstance(seconds, int | float) or not 0 <= seconds < 1e6):
            raise _Refused(400, "seconds must be a number")
        payload = desk.check(given.get("said"), page.mode, page.axes, len(task.answers))
        save = partial(store.save, labels=partial(desk.labels, task))
        next_id = await ask(save, name_of, task.id, name, payload, seconds)
        return await told(name, next_id, saved=True)

    async def undo(request: Request) -> Response:
        same_origin(request)
        name = await person(request)
        found = await ask(store.undo, name)
        if found is None:
            raise _Refused(409, "there is nothing to take back")
        return await told(name, found[0], said=found[1])

    async def index(request: Request) -> Response:
        return Response((STATIC / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, _Refused) else 400 if isinstance(error, InputError) else 503
        what = error.what if isinstance(error, CaiError) else str(error)
        return JSONResponse({"error": what}, status)

    routes = [
        Route("/", index),
        Route("/api/login", login, methods=["POST"]),
        Route("/api/start", start),
        Route("/api/next", following),
        Route("/api/verdict", verdict, methods=["POST"]),
        Route("/api/undo", undo, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_Guard, hosts=page.hosts)],
        exception_handlers={_Refused: refused, CaiError: refused},
    )


class _Refused(Exception):
    """An answer other than 200, with the sentence that the person is shown."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status
