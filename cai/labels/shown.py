"""The two answers in the order in which they are shown, and the prompt as one text."""

from __future__ import annotations

from cai.labels.items import Item
from cai.records import Messages, content_hash


def order_of(item: Item, *, who: str = "") -> str:
    """`ab` or `ba`, drawn by hash of the comparison and, where it is known, of the person who will see it."""
    return "ab" if int(content_hash("order", item.comparison_id, who), 16) % 2 == 0 else "ba"


def sides(item: Item, order: str) -> tuple[str, str]:
    """The texts on the left and on the right."""
    return (item.a.text, item.b.text) if order == "ab" else (item.b.text, item.a.text)


def ids(item: Item, order: str) -> tuple[str, str]:
    """The answers' ids on the left and on the right."""
    return (item.a.id, item.b.id) if order == "ab" else (item.b.id, item.a.id)


def prompt_text(messages: Messages) -> str:
    """A conversation as one text; a single user turn as it is."""
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].content
    return "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in messages)
