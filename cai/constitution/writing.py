"""Principles and constitutions as YAML that people like to edit: prose in blocks, defaults left out, keys in order."""

from __future__ import annotations

import re
from typing import Any

import yaml
from pydantic import BaseModel

from cai.constitution.model import ConstitutionFile, Principle
from cai.yamlfile import CORE_VALUES

_WIDTH = 100
_HEADER = "# yaml-language-server: $schema=../schema/{kind}.schema.json\n"


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes what either YAML 1.1 or 1.2 would read as something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the same text twice is written twice; an editor should meet no anchors

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)  # items of a list stand further in than its key


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if re.search("[\x85\u2028\u2029]", text):
        style = '"'  # line breaks to YAML 1.1: in any other style they would come back as spaces or newlines
    elif "\n" in text:
        style = "|" if text.strip() else '"'
    elif len(text) > _WIDTH - 20 and not text.startswith(" "):  # after such a line, folding keeps the break
        style = ">"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
for _kind, _pattern, _first in CORE_VALUES:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), [*_first, ""])


def dump(data: Any) -> str:
    """JSON-like `data` as YAML; `cai.yamlfile.parse` reads equal data back.

    Text of several lines is a literal block and long text a folded one, except where only quotes can carry it (spaces
    at a line's end, control characters).
    """
    text = yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=_WIDTH, default_flow_style=False)
    return str(text)


def plain(model: BaseModel) -> dict[str, Any]:
    """The model as JSON-like data, in the order of its fields, without what equals its default."""
    return model.model_dump(mode="json", exclude_defaults=True)


def principle_yaml(principle: Principle) -> str:
    """The content of `principles/<id>.yaml`."""
    return _HEADER.format(kind="principle") + dump(plain(principle))


def constitution_yaml(file: ConstitutionFile) -> str:
    """The content of `constitution/<name>.yaml`."""
    return _HEADER.format(kind="constitution") + dump(plain(file))
