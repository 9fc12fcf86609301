"""Rewards that are known exactly: length, words, patterns and form. For tests, for terms beside a model, and as
gold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cai.records import Messages, content_hash
from cai.training.rewards import Tools
from cai.yamlfile import StrictModel


class Term(StrictModel):
    """One term; exactly one of `words`, `pattern`, `format` and `length`. Every term is in [0, 1] before its weight."""

    weight: float = Field(1.0, description="Below 0: a penalty.")
    words: tuple[str, ...] = Field((), description="1 where any of these words or phrases occurs, whatever the case.")
    pattern: str = Field("", description="1 where this regular expression is found.")
    format: Literal["", "json", "list", "one_line", "not_empty"] = Field(
        "", description="1 where the answer has this form."
    )
    length: int | None = Field(
        None, ge=1, description="Words to aim at: 1 there, falling to 0 at none and at twice as many."
    )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _one(self) -> Term:
        if sum((bool(self.words), bool(self.pattern), bool(self.format), self.length is not None)) != 1:
            raise ValueError("give exactly one of words, pattern, format and length")
        if any(not word.strip() for word in self.words):
            raise ValueError("a blank word is in every answer")
        return self


class Config(StrictModel):
    """Options of the rules."""

    terms: tuple[Term, ...] = Field(min_length=1)


class Rules:
    """See `cai.training.base.Reward`: the sum of the terms."""

    name = "rules"

    def __init__(self, terms: Sequence[Term]) -> None:
        self._terms = tuple(terms)
        self.origin = {"terms": [term.model_dump(mode="json", exclude_defaults=True) for term in terms]}
        self.id = content_hash("rules", [term.model_dump(mode="json") for term in terms])
        self._words = [re.compile(_any_of(term.words), re.IGNORECASE) if term.words else None for term in terms]
        self._patterns = [re.compile(term.pattern) if term.pattern else None for term in terms]

    def __call__(self, prompts: Sequence[Messages], answers: Sequence[str]) -> list[float]:
        return [
            math.fsum(t.weight * self._value(i, t, answer) for i, t in enumerate(self._terms)) for answer in answers
        ]

    def _value(self, index: int, term: Term, answer: str) -> float:
        finder = self._words[index] or self._patterns[index]
        if finder is not None:
            return float(finder.search(answer) is not None)
        if term.length is not None:
            return max(0.0, 1 - abs(len(answer.split()) / term.length - 1))
        return float(_has_form(answer, term.format))


def _any_of(words: Sequence[str]) -> str:
    return "|".join(rf"(?<!\w){re.escape(word.strip())}(?!\w)" for word in words)


def _has_form(answer: str, form: str) -> bool:
    text = answer.strip()
    if form == "json":
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True
    lines = [line for line in text.splitlines() if line.strip()]
    if form == "list":
        return len(lines) > 1 and all(re.match(r"\s*(?:[-*•]|\d+[.)])\s+\S", line) for line in lines)
    return len(lines) == 1 if form == "one_line" else bool(text)


def build(config: Config, tools: Tools) -> Rules:
    """The reward."""
    return Rules(config.terms)
