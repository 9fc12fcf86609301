"""A small project on disk, and constitutions in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from cai.constitution.load import Bound, Constitution
from cai.constitution.model import DEFAULT_LEVELS, ConstitutionFile, FewShot, Principle, Selector, Templates
from cai.constitution.writing import dump

LEVELS = {level.name: (level, rank) for rank, level in enumerate(DEFAULT_LEVELS)}


class Make(Protocol):
    """Builds a constitution in memory from id -> what differs from an ordinary principle (also `weight`, `level`)."""

    def __call__(self, principles: Mapping[str, Mapping[str, Any]] | Sequence[str], **parts: Any) -> Constitution: ...


@pytest.fixture
def make() -> Make:
    def build(principles: Mapping[str, Mapping[str, Any]] | Sequence[str], **parts: Any) -> Constitution:
        given = principles if isinstance(principles, Mapping) else {key: {} for key in principles}
        bounds = []
        for name, own in given.items():
            fields = {"title": name, "critique": f"Critique {name}.", "revision": f"Revise {name}.", **own}
            weight, level = float(fields.pop("weight", 1.0)), str(fields.pop("level", "goal"))
            bounds.append(Bound(Principle.model_validate({"id": name, **fields}), weight, *LEVELS[level]))
        shots: tuple[FewShot, ...] = parts.pop("few_shot", ())
        templates: Templates = parts.pop("templates", Templates())
        source: dict[str, Any] = parts.pop("source", {})
        name, system = parts.pop("name", "test"), parts.pop("system_prompt", "")
        assert not parts
        return Constitution(
            name=name,
            principles=tuple(bounds),
            levels=DEFAULT_LEVELS,
            few_shot=shots,
            templates=templates,
            system_prompt=system,
            file=ConstitutionFile(name=name, principles=(Selector(id="any"),), source=source),
            path=Path("test.yaml"),
        )

    return build


class Project:
    """A folder with `constitution/` and `principles/`; the current folder of the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in ("constitution", "principles"):
            (root / kind).mkdir()

    def write(self, path: str, content: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def principle(self, name: str, **own: Any) -> Path:
        words = f"{name}-one {name}-two {name}-three {name}-four"  # no two principles alike
        fields = {"title": name, "critique": f"Critique {words}.", "revision": f"Revise {words}.", **own}
        return self.write(f"principles/{name}.yaml", dump({"id": name, **fields}))

    def constitution(self, name: str, principles: Sequence[Mapping[str, Any] | str], **parts: Any) -> Path:
        entries = [{"id": entry} if isinstance(entry, str) else dict(entry) for entry in principles]
        return self.write(f"constitution/{name}.yaml", dump({"name": name, **parts, "principles": entries}))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)
