"""What the processor is good at, and the precision that follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from cai import processor


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
    assert processor.has_bfloat16(cpu(tmp_path, line)) is has


def test_automatic_precision_avoids_emulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    for has, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(processor, "has_bfloat16", lambda has=has: has)
        assert processor.resolved_dtype("auto") == dtype
        assert processor.resolved_dtype("float16") == "float16"
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    assert processor.resolved_dtype("auto") == "bfloat16"
