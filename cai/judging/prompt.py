"""A judge's prompt: a YAML file with named slots, hashed into every vote's id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from cai import yamlfile
from cai.errors import InputError
from cai.judging.quoting import conversation, fence, quote
from cai.records import Message, Messages
from cai.yamlfile import StrictModel

PROMPTS = Path(__file__).parent.parent / "judges" / "prompts"
SLOT = re.compile(r"\{(\w+)\}")
FILES = (".yaml", ".yml")
"""How a prompt that is given by its path ends; else it is a name."""


class Shot(StrictModel):
    """A worked example before the question: what was asked and answered, and the reply.

    The slots are filled from it as they are for a judge's own question: tags, marks and quoting need not be written.
    """

    prompt: str = Field("", description="What the user asked.")
    answers: tuple[str, ...] = Field((), max_length=2, description="The two answers, or the one that is rated.")
    question: str = Field("", description="What is asked of the judge; by default what the file asks.")
    slots: dict[str, str] = Field(
        default_factory=dict,
        description="Values of slots instead, as they are; or of slots that the above has none for.",
    )
    reply: str = Field(description="The whole reply, as the judge should have given it.")

    def filled(self, question: str) -> dict[str, str]:
        """Values of the slots.

        Args:
            question: of the file.
        """
        found = {"question": (self.question or question).strip(), "mark": fence([self.prompt], self.answers)}
        if self.prompt.strip():
            found["conversation"] = conversation((Message("user", self.prompt),))
        if len(self.answers) == 1:
            found["answer"] = quote(self.answers[0])
        elif self.answers:
            found |= {"answer_a": quote(self.answers[0]), "answer_b": quote(self.answers[1])}
        return found | self.slots


class PromptFile(StrictModel):
    """A judge's prompt: `cai/judges/prompts/<name>.yaml`, or a file of your own.

    The slots of `user` are in braces. Put `{question}` last: what stands before it is the same for every principle, and
    is served from the prefix cache.
    """

    name: str = Field(description="For tables.")
    notes: str = Field("", description="For people; no model sees it.")
    system: str = Field("", description="System message; none where blank.")
    user: str = Field(description="The user's message, with slots.")
    reply: str = Field("", description="How the reply begins; the verdict is the next token.")
    reason: str = Field("", description="How the rationale begins, for judges that write one.")
    verdict: str = Field("", description="What is put between a rationale and the verdict.")
    question: str = Field(description="What is asked where no principle is given.")
    choices: tuple[str, ...] = Field(
        ("A", "B"), description="The tokens whose probability is the verdict: a better, b better, and perhaps a tie."
    )
    few_shot: tuple[Shot, ...] = Field((), description="Worked examples, before the question.")

    @field_validator("choices")
    @classmethod
    def _choices(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) < len(value) or not all(choice.strip() for choice in value):
            raise ValueError("give at least two different choices, none blank")
        for choice in value:
            if choice != choice.strip():
                raise ValueError(f"write {choice.strip()!r} for {choice!r}; a blank before a choice is read as well")
        return value

    @model_validator(mode="after")
    def _shots(self) -> PromptFile:
        slots = set(SLOT.findall(self.user))
        for shot in self.few_shot:
            missing = sorted(slots - set(shot.filled(self.question)))
            if missing:
                raise ValueError(f"a few_shot example lacks the slots {', '.join(missing)}")
        return self

    def check(self, where: str, needed: Iterable[str], optional: Iterable[str] = ()) -> None:
        """Refuse a file without a slot that the judge fills, with one that it does not know, or with one elsewhere than
        in `user`, the only text in which they are filled.

        Raises:
            InputError: names the slot.
        """
        slots, needed = set(SLOT.findall(self.user)), set(needed)
        known = sorted(needed | set(optional))
        for name in ("system", "reply", "reason", "verdict"):
            for slot in SLOT.findall(getattr(self, name)):
                raise InputError(
                    f"the slot {{{slot}}} stands in `{name}`, where none is filled",
                    where=where,
                    mend="put it in `user`",
                )
        for slot in sorted(slots - set(known)):
            raise InputError(f"unknown slot {{{slot}}}{yamlfile.nearest(slot, known)}", where=where)
        for slot in sorted(needed - slots):
            raise InputError(f"the slot {{{slot}}} is missing", where=where)

    def check_pair(self, where: str) -> None:
        """Refuse choices that are not a verdict on two answers: a letter each, and perhaps one for a tie.

        Raises:
            InputError: more of them.
        """
        if len(self.choices) > 3:
            raise InputError(f"{len(self.choices)} choices; a pair has two, and perhaps a tie", where=where)

    def messages(self, slots: Mapping[str, str], *, reply: str | None = None) -> Messages:
        """The conversation to put to the model; with a last assistant turn that it continues, unless `reply` is "".

        Values are put in as they are: a slot's name inside a value is never filled.
        """
        turns = [Message("system", self.system.strip())] if self.system.strip() else []
        for shot in self.few_shot:
            turns += [Message("user", fill(self.user, shot.filled(self.question))), Message("assistant", shot.reply)]
        turns.append(Message("user", fill(self.user, slots)))
        begun = self.reply if reply is None else reply
        return (*turns, Message("assistant", begun)) if begun else tuple(turns)


def load_prompt(name: str) -> PromptFile:
    """A prompt file, by name or by path.

    Raises:
        InputError: no such file; names the nearest. InvalidFile: every fault with its position.
    """
    path = Path(name).expanduser()
    if path.suffix not in FILES:
        known = sorted(file.stem for file in PROMPTS.glob("*.yaml"))
        if name not in known:
            raise InputError(
                f"no judge prompt {name!r}{yamlfile.nearest(name, known)}", mend=f"one of: {', '.join(known)}"
            )
        path = PROMPTS / f"{name}.yaml"
    return yamlfile.validate(yamlfile.load(path), PromptFile)


def absolute_prompts(options: Any, folder: Path) -> Any:
    """A judge's options, or several judges', with the paths of prompt files, inner judges' too, made absolute.

    Args:
        folder: what they are relative to.
    """
    if isinstance(options, Mapping):
        return {
            key: str((folder / Path(value).expanduser()).resolve())
            if key == "prompt" and isinstance(value, str) and value.endswith(FILES)
            else absolute_prompts(value, folder)
            for key, value in options.items()
        }
    return [absolute_prompts(value, folder) for value in options] if isinstance(options, list | tuple) else options


def fill(template: str, slots: Mapping[str, str]) -> str:
    """`template` with its slots filled, in one pass."""
    return SLOT.sub(lambda found: slots[found.group(1)], template).strip()
