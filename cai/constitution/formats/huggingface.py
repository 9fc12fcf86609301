"""The constitution file of Hugging Face's CAI recipe (llm-swarm): principles without names, and example chats.

`{"constitutions": [{"critic", "revision"}], "system_chat": [[{"role", "content"}, ...], ...]}`; each chat becomes a
few-shot example in `messages`. Further keys are kept under `source: {huggingface: ...}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cai.constitution.formats.base import Exported, Imported, Source, kept, lost, six_fields, slug, text_of, title_of
from cai.constitution.load import Constitution
from cai.constitution.model import OUT_OF_TURN, ConstitutionFile, FewShot, Principle, Selector, Turn
from cai.errors import InputError
from cai.records import messages_from

PARTS = ("constitutions",)


def read(sources: Sequence[Source], name: str) -> Imported:
    """Merge files, principles and chats in the order of the files.

    Raises:
        InputError: a malformed file, no principle, or two files that differ in a further key.
    """
    principles: dict[str, Principle] = {}
    shots: list[FewShot] = []
    expected: dict[str, Any] = {}
    for source in sources:
        if not isinstance(source.data, dict):
            raise source.wrong("", "must be a JSON object with 'constitutions' and 'system_chat'")
        entries = source.data.get("constitutions")
        if not isinstance(entries, list) or not entries:
            raise source.wrong("constitutions", "must be a list of objects with 'critic' and 'revision'")
        for index, entry in enumerate(entries):
            principle = _principle(source, index, entry, slug(f"{name}{len(principles)}", principles))
            principles[principle.id] = principle
        chats = source.data.get("system_chat", [])
        if not isinstance(chats, list):
            raise source.wrong("system_chat", "must be a list of chats")
        shots += [_chat(source, index, chat) for index, chat in enumerate(chats)]
        for key, value in source.data.items():
            if key in ("constitutions", "system_chat"):
                expected[key] = [*expected.get(key, []), *value]
            elif expected.setdefault(key, value) != value:
                raise source.wrong(key, "differs from the same key in another file")
    more = {key: value for key, value in expected.items() if key not in ("constitutions", "system_chat")}
    state = {**({"more": more} if more else {}), **({} if "system_chat" in expected else {"system_chat": False})}
    file = ConstitutionFile(
        name=name,
        principles=tuple(Selector(id=known) for known in principles),
        few_shot=tuple(shots),
        source={"huggingface": state} if state else {},
    )
    merged = tuple(f"{source.file}: merged into one file on export" for source in sources[1:])
    notes = tuple(f"the further key {key!r} is kept in the constitution's 'source' and has no effect" for key in more)
    return Imported(file, tuple(principles.values()), {PARTS[0]: expected}, merged + notes)


def write(constitution: Constitution, part: str) -> Exported:
    """The file.

    Raises:
        InputError: no principle has a critique and a revision request.
    """
    state = kept(constitution.file.source, "huggingface")
    out = [b for b in constitution.principles if b.principle.revises]
    if not out:
        raise InputError("nothing to write: no principle has a critique request", where=constitution.name)
    notes = lost(constitution, out, carried=["critique", "few_shot"])
    chats = []
    for index, shot in enumerate(constitution.few_shot):
        if shot.messages:
            chats.append([turn.model_dump() for turn in shot.messages])
        elif parts := six_fields(shot):
            roles = ("user", "assistant") * 3
            chats.append([{"role": role, "content": text} for role, text in zip(roles, parts, strict=True)])
        else:
            notes.append(f"few-shot example {index}: a transcript, not a chat")
    data: dict[str, Any] = {
        "constitutions": [
            {
                "critic": b.principle.critique,
                "revision": b.principle.revision,
                **kept(b.principle.source, "huggingface").get("more", {}),
            }
            for b in out
        ]
    }
    if chats or state.get("system_chat", True):
        data["system_chat"] = chats
    return Exported({**data, **state.get("more", {})}, tuple(notes))


def _principle(source: Source, index: int, entry: Any, known: str) -> Principle:
    key = f"constitutions[{index}]"
    if not isinstance(entry, dict):
        raise source.wrong(key, "must be an object with 'critic' and 'revision'")
    critic = text_of(source, f"{key}.critic", entry.get("critic"))
    revision = text_of(source, f"{key}.revision", entry.get("revision"))
    more = {name: value for name, value in entry.items() if name not in ("critic", "revision")}
    return Principle(
        id=known,
        title=title_of(critic),
        critique=critic,
        revision=revision,
        source={"huggingface": {"more": more}} if more else {},
    )


def _chat(source: Source, index: int, chat: Any) -> FewShot:
    key = f"system_chat[{index}]"
    turns = messages_from(chat, where=f"{source.file}: {key}")
    for place, item in enumerate(chat):
        if extra := sorted(set(item) - {"role", "content"}):
            raise source.wrong(f"{key}[{place}].{extra[0]}", "a message has only a role and a content")
    shot = FewShot(messages=tuple(Turn.model_validate(turn.row()) for turn in turns))
    if not shot.in_turn:
        raise source.wrong(key, OUT_OF_TURN)
    return shot
