"""The page's server: Starlette, JSON in and out, nothing without a token.

- A person's token comes in the link's fragment, which no server or log sees; the page exchanges it for a cookie that no
  script can read and no other site can send. The cookie is of one run: browsers give cookies to every port of a host.
- A verdict brings the ticket of what was shown. Where the browser has meanwhile been given to somebody else, it is
  refused (409) and the page keeps it for its owner.
- Requests that change something need a JSON body, a header of our own and our own origin; hosts are checked, so that a
  name that was rebound to this machine gets nothing: only names we were told, and the very address that was asked. Of a
  TLS proxy nothing is believed that anybody could say; https under a name that whoever serves gave it is our origin.
- Asking is limited by address before the token is looked at, guessing by address, working by person.
- A strict content policy: scripts and styles from here only, none inline; no frames.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
from cai.labels.page.limits import Limits, network, plain
from cai.labels.page.store import Offer, Store
from cai.records import content_hash

STATIC = Path(__file__).resolve().parent / "static"
COOKIE = "cai_label"
ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
LARGEST_BODY = 1_000_000
"""Bytes: a note and an edit of the longest kind fit, whatever their letters take."""
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
        tasks: what is handed out; `others` may have been, before: verdicts on them are taken.
        axes: questions asked of each pair; "" is the overall one. In the other modes exactly one.
        guidelines: title and text of each principle.
        hint: show what the AI judge says.
        hosts: names under which the page may be asked for, without port; `proxied` those of them that may be a TLS
            proxy's.
        more, not_for: by task, of those that need further people; see `store.Offer`.
    """

    tasks: Sequence[desk.Task]
    mode: desk.Mode
    axes: Sequence[str]
    guidelines: Sequence[tuple[str, str]]
    hint: bool = False
    hosts: frozenset[str] = frozenset({"127.0.0.1", "localhost", "::1"})
    proxied: frozenset[str] = frozenset()
    others: Sequence[desk.Task] = ()
    more: Mapping[str, int] = field(default_factory=dict)
    not_for: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def offers(self) -> list[Offer]:
        return [
            Offer(task.id, bool(task.gold), self.more.get(task.id), self.not_for.get(task.id, frozenset()))
            for task in self.tasks
        ]


class _Guard:
    """Headers on every answer, known hosts only, bodies of a bounded size."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        name = _name(headers.get(b"host", b"").decode("latin-1"))
        # A page of another name cannot be made to ask for an address, so the address that was asked is safe.
        asked = plain(str((scope.get("server") or ("",))[0]))

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [(key, value) for key, value in message["headers"] if key.decode("latin-1") not in HEADERS]
                message["headers"] = kept + [(k.encode(), v.encode()) for k, v in HEADERS.items()]
            await send(message)

        size = headers.get(b"content-length", b"0")
        if name not in self.hosts and not (name == asked and _is_address(name)):
            await JSONResponse({"error": "unknown host; see --allow-host"}, 421)(scope, receive, sending)
        elif not size.isdigit() or int(size) > LARGEST_BODY or b"transfer-encoding" in headers:
            await JSONResponse({"error": "the request is too large"}, 413)(scope, receive, sending)
        else:
            await self.app(scope, receive, sending)


def _name(host: str) -> str:
    """The name, or address, in a Host header."""
    return plain(host.lower() if host.endswith("]") else host.lower().rsplit(":", 1)[0])


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


class _Reply(JSONResponse):
    """JSON in ASCII: half a surrogate pair in an answer of a model is escaped, where UTF-8 has no way to write it."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def app(page: Page, store: Store) -> Starlette:
    """The application."""
    by_id = {task.id: task for task in page.tasks}
    known = {task.id: task for task in page.others} | by_id
    cookie = f"{COOKIE}_{store.identity}"
    store.offer(page.offers())
    # Fifty people behind one address stay far below the first limit; the second is for guesses, the third a person's.
    asking, guessing, working = Limits(300, 1500), Limits(0.2, 20), Limits(20, 60)
    # One thread for the database: transactions follow one another anyway, and the loop goes on answering meanwhile.
    pool = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, lambda: function(*arguments))

    async def named(request: Request, token: str, refusal: str) -> str:
        """Whose token it is."""
        address = network(request.client.host if request.client else "?")
        if not asking.allow(address):
            raise _Refused(429, "too many requests; slow down a little")
        name = await ask(store.who, token) if token else None
        if name is None:
            if not guessing.allow(address):
                raise _Refused(429, "too many wrong links; wait a minute")
            raise _Refused(401, refusal)
        if not working.allow(name):
            raise _Refused(429, "too many requests; slow down a little")
        return str(name)

    async def person(request: Request) -> str:
        return await named(request, request.cookies.get(cookie, ""), "open the link you were given")

    def key_of(name: str) -> str:
        return content_hash("person", store.identity, name, length=16)

    def same_origin(request: Request) -> None:
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        # A browser says where a script is from; a proxy may ask for another host than the browser, and by plain http.
        own = {f"{request.url.scheme}://{host}", *(f"https://{name}" for name in page.proxied)}
        if _name(host) in page.proxied:
            own.add(f"https://{host}")  # with its port
        if origin is not None and origin not in own:
            raise _Refused(
                403,
                f"only the page itself may ask for this, not {origin[:200]}; if that is a TLS proxy before the page, "
                "its owner serves the page with --allow-host and the proxy's name",
            )
        json_body = request.headers.get("content-type", "").split(";")[0].strip() == "application/json"
        if request.headers.get("x-cai") != "1" or not json_body:
            raise _Refused(403, "only the page itself may ask for this")

    async def body(request: Request) -> dict[str, Any]:
        try:
            found = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise _Refused(400, "the request is not JSON") from error
        if not isinstance(found, dict):
            raise _Refused(400, "the request is not an object")
        return found

    async def told(name: str, task_id: str | None, **more: Any) -> JSONResponse:
        task = by_id.get(task_id or "")
        row = None if task is None else desk.shown(task, name, hint=page.hint)
        if row is not None:
            row["ticket"] = f"{key_of(name)}.{row['ticket']}"
        last = await ask(store.last, name)
        return _Reply({"task": row, "progress": await ask(store.progress, name), "last": last, **more})

    async def login(request: Request) -> Response:
        same_origin(request)
        token = str((await body(request)).get("token", ""))
        name = await named(request, token, "this link is not valid; ask for a new one")
        response = _Reply({"name": name})
        response.set_cookie(
            cookie,
            token,
            httponly=True,
            samesite="strict",
            path="/",
            max_age=30 * 86400,
            secure="https" in (request.url.scheme, request.headers.get("origin", "").partition(":")[0]),
        )
        return response

    async def start(request: Request) -> Response:
        name = await person(request)
        settings = {"name": name, "key": key_of(name), "mode": page.mode, "axes": list(page.axes)}
        guidelines = [{"title": title, "text": text} for title, text in page.guidelines]
        return _Reply({**settings, "guidelines": guidelines, "progress": await ask(store.progress, name)})

    async def following(request: Request) -> Response:
        name = await person(request)
        return await told(name, await ask(store.next, name))

    async def verdict(request: Request) -> Response:
        same_origin(request)
        name = await person(request)
        given = await body(request)
        shown_to, _, shown = str(given.get("ticket", "")).partition(".")
        if shown_to != key_of(name):
            raise _Refused(409, f"this browser is now used by {name}: open your own link again", why="person")
        task = known.get(str(given.get("task", "")))
        own = given.get("id")
        if not isinstance(own, str) or not ID.fullmatch(own):
            raise _Refused(400, "a verdict needs an id of its own")
        if task is None or shown != desk.ticket(task, name):
            raise _Refused(409, "this item is no longer the one that was shown")
        seconds = given.get("seconds")
        if seconds is not None and (not isinstance(seconds, int | float) or not 0 <= seconds < 1e6):
            raise _Refused(400, "seconds must be a number")
        texts = [task.answers[place].text for place in desk.order_for(task, name)]
        payload = desk.check(given.get("said"), page.mode, page.axes, texts)
        save = partial(store.save, labels=partial(desk.labels, task))
        next_id = await ask(save, own, task.id, name, payload, seconds)
        return await told(name, next_id, saved=True)

    async def undo(request: Request) -> Response:
        same_origin(request)
        name = await person(request)
        own = (await body(request)).get("verdict")
        if not isinstance(own, str) or not ID.fullmatch(own):
            raise _Refused(400, "there is nothing to take back")
        task_id, said = await ask(store.undo, name, own)
        return await told(name, task_id, **({} if said is None else {"said": said}))

    async def index(request: Request) -> Response:
        return Response((STATIC / "index.html").read_bytes(), media_type="text/html; charset=utf-8")

    async def refused(request: Request, error: Exception) -> Response:
        status = error.status if isinstance(error, _Refused) else 400 if isinstance(error, InputError) else 503
        what = error.what if isinstance(error, CaiError) else str(error)
        return _Reply({"error": what, "why": getattr(error, "why", "")}, status)

    async def failed(request: Request, error: Exception) -> Response:
        return _Reply({"error": "the server failed on this; its owner finds why in its output"}, 500)

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
        exception_handlers={_Refused: refused, CaiError: refused, Exception: failed},
    )


class _Refused(Exception):
    """An answer other than 200, with the sentence that the person is shown, and a word for the page."""

    def __init__(self, status: int, what: str, *, why: str = "") -> None:
        super().__init__(what)
        self.status, self.why = status, why
