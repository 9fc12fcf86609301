"""What the vLLM backend decides before vLLM is loaded; the rest is in tests/real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.backends import vllm


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 64)
    return folder


def cpu(tmp_path: Path, line: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\nmodel name\t: Some CPU\n{line}\n")
    return path


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu sse avx2 fma", False),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile", True),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("Features\t: fp asimd", False),
    ],
)
def test_which_processors_multiply_bfloat16(tmp_path: Path, line: str, has: bool) -> None:
    assert vllm.has_bfloat16(cpu(tmp_path, line)) is has


def test_automatic_precision_avoids_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    for has, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(vllm, "has_bfloat16", lambda has=has: has)
        assert vllm.resolved_dtype("auto") == dtype
        assert vllm.resolved_dtype("float16") == "float16"
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    assert vllm.resolved_dtype("auto") == "bfloat16"


def test_the_fingerprint_does_not_depend_on_the_processor(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for has in (True, False):
        monkeypatch.setattr(vllm, "has_bfloat16", lambda has=has: has)
        found.add(vllm.fingerprint(vllm.Config(model=str(model))))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("engine", "same"),
    [
        ({"max_num_batched_tokens": 2048, "block_size": 32}, True),
        ({"quantization": "fp8"}, False),
        ({"hf_overrides": {"rope_theta": 1.0}}, False),
    ],
)
def test_engine_arguments_that_change_the_model_change_its_fingerprint(
    model: Path, engine: dict[str, Any], same: bool
) -> None:
    plain = vllm.fingerprint(vllm.Config(model=str(model)))
    assert (vllm.fingerprint(vllm.Config(model=str(model), engine=engine)) == plain) is same
