"""What `cai constitution try` shows: the answers of each round side by side, or one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cai.constitution.load import Bound
from cai.preview import Exchange, Preview
from cai.records import Response
from cai.stages.why import visible

WIDE = 100
"""Columns of a terminal from which three texts fit beside each other."""


def render(preview: Preview, *, width: int, full: bool = False) -> Group:
    """The preview for a terminal. Texts of models, users and files are shown literally: no markup, no control codes.

    Args:
        full: with every request whole.
    """
    return Group(*_parts(preview, width, full))


def _parts(preview: Preview, width: int, full: bool) -> Iterator[RenderableType]:
    responses = {response.id: response for response in preview.chain.responses}
    yield Panel(_text(preview.prompt.messages[-1].content), title="prompt", title_align="left")
    for response in preview.chain.responses:
        if response.round == 0:
            if len(responses) == 1:
                yield _one("draft", response.text, response.flags)
            continue
        yield from _asked(preview, response)
        parent = responses[response.parent_id or ""]
        yield _texts(
            width,
            ("draft" if parent.round == 0 else f"revision {parent.round}", parent.text, parent.flags),
            ("critique", response.critique or "", response.critique_flags),
            (f"revision {response.round}", response.text, response.flags),
        )
    for response in preview.chain.responses:
        for attempt in response.attempts:
            flags = ", ".join(attempt["flags"])
            yield _text(f"thrown away in round {response.round}, {attempt['step']} ({flags}):", style="yellow")
            yield _text(attempt["text"], style="dim")
    if preview.chain.quarantined:
        yield _text(f"A run would quarantine this prompt: {preview.chain.quarantined.detail}.", style="bold yellow")
    if full:
        for number, exchange in enumerate(preview.exchanges, start=1):
            yield _whole(number, exchange)
    yield _foot(preview, full)


def _asked(preview: Preview, response: Response) -> Iterator[RenderableType]:
    """Which principle was drawn and what was asked, word for word."""
    bounds = [preview.constitution.get(name) for name in response.principle_ids]
    yield Text()
    yield _text(f"Round {response.round}: {', '.join(_named(bound) for bound in bounds)}", style="bold")
    table = Table.grid(padding=(0, 1))
    for step in ("critique", "revision"):
        for exchange in preview.requests(response.round, step)[:1]:  # a round that was skipped has no revision
            table.add_row(_text(f"{step} request:", style="cyan"), _text(exchange.asked, style="cyan"))
    yield table


def _named(bound: Bound) -> str:
    return f"{bound.id} ({bound.principle.title})"


def _texts(width: int, *parts: tuple[str, str, Sequence[str]]) -> RenderableType:
    if width < WIDE:
        return Group(*(_one(*part) for part in parts))
    table = Table(box=ROUNDED, expand=True, show_lines=True)
    for title, _, _ in parts:
        table.add_column(_text(title), ratio=1, overflow="fold")
    table.add_row(*(_text(text) for _, text, _ in parts))
    if any(flags for _, _, flags in parts):
        table.add_row(*(_text(_flags(flags), style="yellow") for _, _, flags in parts))
    return table


def _one(title: str, text: str, flags: Sequence[str]) -> RenderableType:
    below = _text(_flags(flags), style="yellow") if flags else None
    return Panel(_text(text), title=_text(title), title_align="left", subtitle=below, subtitle_align="left")


def _flags(flags: Sequence[str]) -> str:
    return f"flags: {', '.join(flags)}" if flags else ""


def _whole(number: int, exchange: Exchange) -> RenderableType:
    prompt = exchange.request.prompt
    turns = () if isinstance(prompt, str) else prompt
    said = "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in turns) or str(prompt)
    sampling = exchange.request.sampling
    title = f"request {number}: {exchange.step}, seed {exchange.request.seed}, temperature {sampling.temperature:g}"
    return Panel(_text(said), title=_text(title), title_align="left", border_style="dim")


def _foot(preview: Preview, full: bool) -> RenderableType:
    tokens = preview.tokens()
    model = preview.exchanges[0].completion.model
    shown = len(preview.constitution.few_shot)
    told = (
        f"{len(preview.exchanges)} requests to {model}: {tokens['prompt']} tokens read, {tokens['completion']} written"
    )
    if shown:
        told += f"; {shown} worked examples stand before each critique and revision"
    return _text(told + ("" if full else " (--full shows every request whole)"), style="dim")


def _text(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style)
