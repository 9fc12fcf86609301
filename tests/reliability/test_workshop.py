"""Which backends a run keeps loaded from stage to stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from cai import plugins
from cai.pipeline.work import Workshop


class Config(BaseModel):
    name: str


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was built and closed, in order."""
    told: list[str] = []

    class Fake:
        def __init__(self, name: str) -> None:
            self.name = name

        async def close(self) -> None:
            told.append(f"-{self.name}")

    def build(config: Config, **how: Any) -> Fake:
        told.append(f"+{config.name}")
        return Fake(config.name)

    monkeypatch.setattr(plugins, "load", lambda package, name: SimpleNamespace(build=build))
    return told


@pytest.fixture
def workshop() -> Workshop:
    kinds = {"policy": "vllm", "critic": "vllm", "judge": "vllm", "server": "openai"}
    models = {role: (kind, Config(name=role)) for role, kind in kinds.items()} | {
        "twin": ("vllm", Config(name="policy"))
    }
    loaded = SimpleNamespace(models=models, recipe=SimpleNamespace(seed=0))
    job: Any = SimpleNamespace(loaded=loaded, fingerprints=dict.fromkeys(models, "m@1"))
    report: Any = SimpleNamespace(say=lambda text: None)
    return Workshop(job, report)


def test_what_is_loaded_stays_while_nothing_else_is_wanted(workshop: Workshop, story: list[str]) -> None:
    with workshop:
        first = workshop.backends(["policy", "critic"], expected_tokens=1)
        assert workshop.backends(["twin"], expected_tokens=1)["twin"] is first["policy"]
        workshop.backends([], expected_tokens=1)
        assert story == ["+policy", "+critic"]
    assert sorted(story[2:]) == ["-critic", "-policy"]


def test_one_that_goes_takes_its_kind_along(workshop: Workshop, story: list[str]) -> None:
    """An engine of vLLM that ends takes down what others in the same process stand on."""
    with workshop:
        workshop.backends(["policy", "critic", "server"], expected_tokens=1)
        workshop.backends(["policy", "judge", "server"], expected_tokens=1)
        assert sorted(story[3:5]) == ["-critic", "-policy"]
        assert story[5:] == ["+policy", "+judge"]
