"""Judges inside a judge: how a recipe names them, and how they are checked and built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cai import plugins
from cai.errors import InputError
from cai.judging import Judge
from cai.yamlfile import StrictModel, nearest

JUDGES = "cai.judges"


class Inner(BaseModel):
    """A judge by its `method`, with that method's own options beside it; they are checked when the recipe is read."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = Field(description="Name of the judge method.")

    @model_validator(mode="after")
    def _options(self) -> Inner:
        self.config()
        return self

    def config(self) -> StrictModel:
        """The method's options.

        Raises:
            ValueError: no such method, or options that it does not take.
        """
        try:
            model = plugins.load(JUDGES, self.method).Config
        except InputError as error:
            raise ValueError(str(error)) from error
        try:
            config: StrictModel = model.model_validate(self.model_extra or {})
        except ValidationError as error:
            faults = [_fault(fault, sorted(model.model_fields)) for fault in error.errors(include_url=False)]
            raise ValueError(f"{self.method}: {'; '.join(faults)}") from error
        return config

    def build(self, models: Mapping[str, str], seed: int) -> Judge:
        """The judge.

        Raises:
            InputError: from its method.
        """
        judge: Judge = plugins.load(JUDGES, self.method).build(self.config(), models=models, seed=seed)
        return judge


class Member(Inner):
    """A judge on a panel."""

    name: str = Field("", description="What its votes carry; the method by default.")

    @property
    def label(self) -> str:
        return self.name or self.method


def _fault(fault: Any, known: list[str]) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {place!r}{nearest(place, known)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def roles(config: BaseModel) -> tuple[str, ...]:
    """Roles of all the models that a judge with these options asks, inner judges' too; sorted."""
    if isinstance(config, Inner):
        return roles(config.config())
    found = {str(value) for value in [getattr(config, "model", "")] if value}
    for name in type(config).model_fields:
        value = getattr(config, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, Inner):
                found.update(roles(each))
    return tuple(sorted(found))
