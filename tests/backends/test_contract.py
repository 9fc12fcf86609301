"""What every backend promises, whoever adds it: one file with `Config`, `fingerprint` and `build`."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pydantic
import pytest

from cai import plugins
from cai.errors import InputError
from cai.yamlfile import StrictModel

NAMES = plugins.names("cai.backends")
HEAVY = ("torch", "vllm", "openai", "transformers", "ray", "trl", "httpx")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The least that each backend can be configured with; a new backend adds a line."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    return {
        "openai": {"url": "http://127.0.0.1:1/v1", "model": "small"},
        "scripted": {},
        "vllm": {"model": str(model)},
    }


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def module(name: str) -> ModuleType:
    return plugins.load("cai.backends", name)


@pytest.fixture
def config(name: str, module: ModuleType, settings: dict[str, dict[str, Any]]) -> StrictModel:
    assert name in settings, f"add the least configuration of {name!r} to this test"
    made = module.Config(**settings[name])
    assert isinstance(made, StrictModel)
    return made


def test_the_known_backends_are_there() -> None:
    assert {"openai", "scripted", "vllm"} <= set(NAMES)


def test_an_unknown_name_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no backend 'scriptde'.*scripted"):
        plugins.load("cai.backends", "scriptde")


def test_it_says_what_it_is_for(module: ModuleType) -> None:
    assert (module.__doc__ or "").strip()
    assert (module.build.__doc__ or "").strip()


def test_importing_it_loads_nothing_heavy(name: str) -> None:
    code = f"import sys, cai.backends.{name}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_settings_are_validated_frozen_and_survive_being_written(config: StrictModel) -> None:
    again = type(config).model_validate(json.loads(json.dumps(config.model_dump(mode="json"))))
    assert again == config
    with pytest.raises(pydantic.ValidationError):
        type(config).model_validate({**config.model_dump(), "no_such_setting": 1})
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        setattr(config, next(iter(type(config).model_fields)), "x")


def test_build_takes_the_seed_and_the_expected_tokens_by_name(module: ModuleType) -> None:
    parameters = inspect.signature(module.build).parameters
    assert next(iter(parameters)) == "config"
    assert parameters["seed"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["expected_tokens"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters["expected_tokens"].default == 0


def test_the_fingerprint_names_the_model_and_is_stable(module: ModuleType, config: StrictModel) -> None:
    found = module.fingerprint(config)
    assert found == module.fingerprint(config.model_copy())
    readable, _, digest = found.partition("@")
    assert readable
    assert len(digest) >= 8


def test_settings_of_the_machine_do_not_change_the_fingerprint(module: ModuleType, config: StrictModel) -> None:
    """Else another number of seats would be another run."""
    assert module.fingerprint(config.model_copy(update={"seats": 3})) == module.fingerprint(config)


def test_the_backend_class_has_what_the_engine_needs(module: ModuleType) -> None:
    backend = module.Backend
    assert inspect.iscoroutinefunction(backend.generate)
    assert inspect.iscoroutinefunction(backend.close)
    assert list(inspect.signature(backend.generate).parameters) == ["self", "request"]
