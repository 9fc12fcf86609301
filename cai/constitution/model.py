"""What a principle and a constitution are: the shape of the files under `principles/` and `constitution/`."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from cai.yamlfile import StrictModel, nearest

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _possible_weight(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"the weight must be a finite number of at least 0, not {value}")
    return value


Text = Annotated[str, AfterValidator(_not_blank), Field(json_schema_extra={"minLength": 1})]
Ident = Annotated[str, Field(pattern=ID_PATTERN)]
Weight = Annotated[
    float, BeforeValidator(_not_bool), AfterValidator(_possible_weight), Field(json_schema_extra={"minimum": 0})
]


class Example(StrictModel):
    """A pair that shows what the principle means; `cai constitution test` checks that a judge can tell them apart."""

    prompt: Text = Field(description="What the user asked.")
    better: Text = Field(description="An answer that follows the principle.")
    worse: Text = Field(description="An answer that breaks it.")
    why: str = Field("", description="What makes the difference.")


class Principle(StrictModel):
    """One principle, the content of `principles/<id>.yaml`."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"critique": ["revision"], "revision": ["critique"]},
            "anyOf": [{"required": ["critique", "revision"]}, {"required": ["judge"]}],
        }
    )

    id: Ident = Field(description="Name of the principle; equal to the file name without .yaml.")
    title: Text = Field(description="A few words for tables.")
    asks: str = Field("", description="What the principle asks for, in plain words; what an answer is rated by.")
    critique: str = Field("", description="The critique request put to the model.")
    revision: str = Field("", description="The revision request put to the model.")
    judge: str = Field("", description="The question put to a judge who compares two answers.")
    axis: Ident = Field("harmless", description="What is measured: harmless, helpful, honest, ...")
    tags: tuple[Ident, ...] = Field((), description="Free labels; a constitution can choose principles by tag.")
    examples: tuple[Example, ...] = Field((), description="Pairs of a better and a worse answer.")
    notes: str = Field("", description="For people; no model sees them.")
    version: int = Field(1, ge=1, description="Raise it when the meaning changes.")
    source: dict[str, JsonValue] = Field(
        default_factory=dict, description="What an imported file said that has no place here; export puts it back."
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Principle:
        if bool(self.critique.strip()) != bool(self.revision.strip()):
            raise ValueError("'critique' and 'revision' go together: give both or neither")
        if not self.critique.strip() and not self.judge.strip():
            raise ValueError("give 'critique' and 'revision', or 'judge', or all three")
        return self

    @property
    def revises(self) -> bool:
        """Whether it has a critique and a revision request (a principle may be for judging only)."""
        return bool(self.critique.strip())


class Level(StrictModel):
    """A rank of principles. Levels are listed strongest first; the stronger wins when two principles conflict."""

    name: Ident = Field(description="What the principles' `level` refers to.")
    meaning: str = Field("", description="For people, and for the {precedence} slot of the templates.")
    overridable: bool = Field(False, description="A prompt may set its principles aside (its `overrides`).")


DEFAULT_LEVELS = (
    Level(name="rule", meaning="binds always"),
    Level(name="goal", meaning="is weighed against the other goals"),
    Level(name="default", meaning="holds unless the user asks otherwise", overridable=True),
)


class Selector(StrictModel):
    """Which principles take part: one by `id`, or all that carry `tag`; and with which weight and level."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["id"]}, {"required": ["tag"]}]})

    id: Ident | None = Field(None, description="One principle.")
    tag: Ident | None = Field(None, description="Every principle that carries this tag.")
    weight: Weight = Field(1.0, description="How often it is drawn, relative to the others. 0 turns it off.")
    level: Ident = Field("goal", description="One of the constitution's levels.")

    @model_validator(mode="after")
    def _one_way(self) -> Selector:
        if (self.id is None) == (self.tag is None):
            raise ValueError("give either 'id' or 'tag'")
        return self


class Turn(StrictModel):
    """One message of a raw few-shot conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


OUT_OF_TURN = "user and assistant must take turns, user first and assistant last; chat templates refuse another order"


class FewShot(StrictModel):
    """A worked critique and revision that keeps the model from losing the point of view.

    Either the six fields, or `messages` (any conversation), or `text` (any transcript, for base models).
    """

    prompt: str = Field("", description="What the user asked.")
    response: str = Field("", description="The answer to be critiqued.")
    critique_request: str = Field("", description="What asks for the critique.")
    critique: str = Field("", description="A good critique of the answer.")
    revision_request: str = Field("", description="What asks for the revision.")
    revision: str = Field("", description="The answer after a good revision.")
    messages: tuple[Turn, ...] = Field((), description="Instead of the six: any conversation.")
    text: str = Field("", description="Instead of the six: any transcript, for base models.")

    @model_validator(mode="after")
    def _one_form(self) -> FewShot:
        six = [self.prompt, self.response, self.critique_request, self.critique, self.revision_request, self.revision]
        forms = [all(part.strip() for part in six), bool(self.messages), bool(self.text.strip())]
        if sum(forms) != 1 or (any(six) and not forms[0]):
            raise ValueError(
                "give prompt, response, critique_request, critique, revision_request and revision; "
                "or only 'messages'; or only 'text'"
            )
        return self

    @property
    def in_turn(self) -> bool:
        """Whether `messages` can stand before a conversation. Asked of files, not of what an older run has kept."""
        return [turn.role for turn in self.messages] == ["user", "assistant"] * (len(self.messages) // 2)


SLOT = re.compile(r"\{(\w+)\}")
SLOTS = ("request", "precedence", "rules")


class Templates(StrictModel):
    """How requests are worded around the principles. Named slots in braces; a slot that is not known is an error.

    Slots: `{request}` the principle's (or principles') own request, `{precedence}` one sentence that says which
    principle wins (empty where only one is asked), `{rules}` what the principles of the strongest
    level ask, one a line.
    """

    critique: str = Field("{request}{precedence}", description="How a critique is asked for.")
    revision: str = Field("{request}{precedence}", description="How a revision is asked for.")

    @field_validator("critique", "revision")
    @classmethod
    def _slots(cls, text: str) -> str:
        unknown = sorted(set(SLOT.findall(text)) - set(SLOTS))
        faults = [f"unknown slot {{{slot}}}{nearest(slot, SLOTS)}" for slot in unknown]
        if "{request}" not in text:
            faults.append("the slot {request} is missing, so the principle would never be asked")
        if faults:
            slots = ", ".join(f"{{{slot}}}" for slot in SLOTS)
            raise ValueError(f"{'; '.join(faults)}; the slots are {slots}")
        return text


class ConstitutionFile(StrictModel):
    """The content of `constitution/<name>.yaml`."""

    name: Ident = Field(description="Name of the constitution; equal to the file name without .yaml.")
    title: str = Field("", description="A few words for people.")
    description: str = Field("", description="For people; no model sees it.")
    version: int = Field(1, ge=1, description="Raise it when the meaning changes.")
    system_prompt: str = Field(
        "", description="Put before every conversation; part of the training rows only if the recipe says so."
    )
    levels: tuple[Level, ...] = Field(DEFAULT_LEVELS, description="Strongest first.")
    principles: tuple[Selector, ...] = Field(min_length=1, description="Which principles take part.")
    few_shot: tuple[FewShot, ...] = Field((), description="Worked examples shown before every critique and revision.")
    templates: Templates = Field(
        default_factory=Templates, description="How requests are worded around the principles."
    )
    principles_dir: str = Field(
        "", description="Where the principle files are, relative to this file; default ../principles."
    )
    source: dict[str, JsonValue] = Field(
        default_factory=dict, description="What an imported file said that has no place here; export puts it back."
    )
