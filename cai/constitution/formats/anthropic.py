"""The prompt files of Constitutional AI (Bai et al. 2022, arXiv 2212.08073), five kinds told apart by their shape.

- `critique-revision`: {key: {"prompt": [one text], "edit_request": text}};
- `few-shot`: list of transcripts of a critique and a revision;
- `preference`: list of questions to a judge, ending in "Options:";
- `preference-few-shot`: list of {"prompt", "corrects": [...], "incorrects": [...]};
- `preference-cot-few-shot`: list of {"prompt"} with one `{}` where the question goes.

Texts are stored without their frames ("\\n\\nCritiqueRequest: ...\\n\\nCritique:"); an unusual frame, and whatever else
has no place in our files, is kept under `source: {anthropic: ...}`. The judge's examples are kept there whole, by part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai.constitution.formats.base import (
    SIX,
    Exported,
    Imported,
    Source,
    kept,
    lost,
    shot_key,
    six_fields,
    slug,
    text_of,
    title_of,
    unwrap,
    wrapped,
)
from cai.constitution.load import Bound, Constitution
from cai.constitution.model import ConstitutionFile, FewShot, Principle, Selector
from cai.errors import InputError

PARTS = ("critique-revision", "few-shot", "preference", "preference-few-shot", "preference-cot-few-shot")

_EXAMPLES = PARTS[3:]
_CRITIQUE = ("\n\nCritiqueRequest: ", "\n\nCritique:")
_REVISION = ("\n\nRevisionRequest: ", "\n\nRevision:")
_QUESTION = ("\n", " Options:")
_SHOT = ("\n\n", "\n\nHuman:")
_LABELS = ("Human", "Assistant", "CritiqueRequest", "Critique", "RevisionRequest", "Revision")
_TRANSCRIPT = re.compile("\n\n".join(f"{label}: (.*?)" for label in _LABELS), re.DOTALL)
_LABEL = re.compile(rf"\n\n(?:{'|'.join(_LABELS)}):")


def read(sources: Sequence[Source], name: str) -> Imported:
    """Merge files of any of the five kinds, principles in the order of the files.

    Raises:
        InputError: a file of none of the kinds or malformed, two principles with one key, or no principle at all.
    """
    principles: dict[str, Principle] = {}
    shots: list[FewShot] = []
    state: dict[str, Any] = {"files": {}}
    expected: dict[str, Any] = {}
    notes: list[str] = []
    keys: dict[str, str] = {}
    for source in sources:
        part = _part(source)
        if part in expected:
            notes.append(f"{source.file}: merged into one '{part}' file on export")
        state["files"].setdefault(part, []).append(Path(source.file).name)
        if part == "critique-revision":
            for key, entry in source.data.items():
                if key in keys:
                    raise source.wrong(key, f"this key is also in {keys[key]}")
                keys[key] = source.file
                principle = _critique(source, key, entry, slug(key, principles))
                if len(entry["prompt"]) > 1:
                    notes.append(f"{source.file}: {key}: of {len(entry['prompt'])} critique requests the first is used")
                principles[principle.id] = principle
            expected[part] = {**expected.get(part, {}), **source.data}
            continue
        if part == "few-shot":
            for index, text in enumerate(source.data):
                shot, frame = _shot(text_of(source, str(index), text))
                shots.append(shot)
                if frame:
                    state.setdefault("few_shot_frames", {})[shot_key(shot)] = frame
        elif part == "preference":
            first = len(expected.get(part, []))
            for index, text in enumerate(source.data):
                core, frame = unwrap(text_of(source, str(index), text), *_QUESTION)
                known = slug(f"preference{first + index}", principles)
                extra = {"anthropic": {"judge_frame": frame}} if frame else {}
                principles[known] = Principle(id=known, title=title_of(core), judge=core, source=extra)
        else:
            _check_examples(source, part)
            state[part] = [*state.get(part, []), *source.data]
            notes.append(f"{source.file}: kept in the constitution's 'source'; only a judge that asks for it uses it")
        expected[part] = [*expected.get(part, []), *source.data]
    if not principles:
        files = ", ".join(source.file for source in sources)
        raise InputError("no principles in these files", where=files, mend="give the file of instructions too")
    file = ConstitutionFile(
        name=name,
        title="Imported from " + ", ".join(file for files in state["files"].values() for file in files),
        principles=tuple(Selector(id=known) for known in principles),
        few_shot=tuple(shots),
        source={"anthropic": state},
    )
    return Imported(file, tuple(principles.values()), expected, tuple(notes))


def write(constitution: Constitution, part: str) -> Exported:
    """One of the five files.

    Raises:
        InputError: the constitution has nothing to put there.
    """
    state = kept(constitution.file.source, "anthropic")
    data: Any
    out: list[Bound] = []
    notes: list[str] = []
    if part == "critique-revision":
        out = [b for b in constitution.principles if b.principle.revises]
        data = {str(kept(b.principle.source, "anthropic").get("key", b.id)): _entry(b.principle) for b in out}
        notes = lost(constitution, out, carried=["critique"])
    elif part == "few-shot":
        frames = kept(state, "few_shot_frames")
        notes = lost(constitution, out, carried=["few_shot"])
        data = []
        for index, shot in enumerate(constitution.few_shot):
            if text := _transcript(shot):
                data.append(wrapped(text, *_SHOT, frames.get(shot_key(shot))))
            else:
                notes.append(f"few-shot example {index}: a chat that is no critique and revision")
    elif part == "preference":
        out = [b for b in constitution.principles if b.principle.judge.strip()]
        frames = {b.id: kept(b.principle.source, "anthropic").get("judge_frame") for b in out}
        data = [wrapped(b.principle.judge, *_QUESTION, frames[b.id]) for b in out]
        notes = lost(constitution, out, carried=["judge"])
    else:
        data = state.get(part) or []
        notes = lost(constitution, out, carried=[])
    if not data:
        raise InputError(f"nothing to write as '{part}'", where=constitution.name)
    notes += [f"the examples kept for '{other}'" for other in _EXAMPLES if other != part and state.get(other)]
    return Exported(data, tuple(notes))


def _part(source: Source) -> str:
    data = source.data
    if isinstance(data, dict) and data:
        return "critique-revision"
    if isinstance(data, list) and data:
        if all(isinstance(item, str) for item in data):
            return "preference" if any(item.rstrip().endswith("Options:") for item in data) else "few-shot"
        if all(isinstance(item, dict) for item in data):
            judged = any("corrects" in item or "incorrects" in item for item in data)
            return "preference-few-shot" if judged else "preference-cot-few-shot"
    raise source.wrong("", "must be a non-empty JSON object, list of texts or list of objects")


def _critique(source: Source, key: str, entry: Any, known: str) -> Principle:
    if not isinstance(entry, dict):
        raise source.wrong(key, "must be an object with 'prompt' and 'edit_request'")
    prompts = entry.get("prompt")
    if not isinstance(prompts, list) or not prompts:
        raise source.wrong(f"{key}.prompt", "must be a list of one text")
    texts = [text_of(source, f"{key}.prompt[{index}]", text) for index, text in enumerate(prompts)]
    critique, critique_frame = unwrap(texts[0], *_CRITIQUE)
    revision, revision_frame = unwrap(text_of(source, f"{key}.edit_request", entry.get("edit_request")), *_REVISION)
    state = {
        "key": key if key != known else None,
        "critique_frame": critique_frame,
        "revision_frame": revision_frame,
        "more_prompts": texts[1:] or None,
        "more": {name: value for name, value in entry.items() if name not in ("prompt", "edit_request")} or None,
    }
    state = {name: value for name, value in state.items() if value is not None}
    return Principle(
        id=known,
        title=title_of(critique),
        critique=critique,
        revision=revision,
        source={"anthropic": state} if state else {},
    )


def _entry(principle: Principle) -> dict[str, Any]:
    state = kept(principle.source, "anthropic")
    return {
        "prompt": [
            wrapped(principle.critique, *_CRITIQUE, state.get("critique_frame")),
            *state.get("more_prompts", []),
        ],
        "edit_request": wrapped(principle.revision, *_REVISION, state.get("revision_frame")),
        **state.get("more", {}),
    }


def _shot(text: str) -> tuple[FewShot, list[str] | None]:
    """A transcript in its six fields where they give it back, else as `text`; the frame as from `unwrap`."""
    # Unlike `unwrap`: "Human:" at the end is only the stop sequence, at the start it belongs to the transcript.
    end = re.search(r"(?:\s*\n\nHuman:)?\s*\Z", text)
    core = text[: end.start() if end else len(text)].lstrip()
    start = text.index(core)
    frame = [text[:start], text[start + len(core) :]]
    match = _TRANSCRIPT.fullmatch(core)
    shot = FewShot(text=core)
    if match and all(part.strip() and not _LABEL.search(f"\n\n{part}") for part in match.groups()):
        shot = FewShot(**dict(zip(SIX, match.groups(), strict=True)))
    if _transcript(shot) != core:
        shot = FewShot(text=core)
    return shot, None if frame == list(_SHOT) else frame


def _transcript(shot: FewShot) -> str:
    if shot.text:
        return shot.text
    parts = six_fields(shot)
    return "\n\n".join(f"{label}: {part}" for label, part in zip(_LABELS, parts, strict=True)) if parts else ""


def _check_examples(source: Source, part: str) -> None:
    for index, item in enumerate(source.data):
        prompt = text_of(source, f"{index}.prompt", item.get("prompt"))
        if part == "preference-cot-few-shot" and prompt.count("{}") != 1:
            raise source.wrong(f"{index}.prompt", f"must have one {{}} for the question, not {prompt.count('{}')}")
        if part == "preference-few-shot":
            for key in ("corrects", "incorrects"):
                values = item.get(key)
                if not isinstance(values, list) or not values:
                    raise source.wrong(f"{index}.{key}", "must be a list of texts")
                for place, value in enumerate(values):
                    text_of(source, f"{index}.{key}[{place}]", value)
