"""Write requirements/cpu.txt and dev.txt anew: every package that pip would install, with its version.

    python scripts/lock.py

Run it with the pip that is to be used, after changing dependencies in pyproject.toml; commit the result.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = {
    "torch": "installed by scripts/setup.py, which knows where to look for the CPU build",
    "torchvision": "CUDA build; breaks `import transformers` beside CPU torch, and text models do not need it",
    "torchaudio": "CUDA build, as torchvision",
    "torchcodec": "CUDA build, as torchvision",
    "triton": "compiles for GPUs only; 700 MB",
}
BUILD = ["hatchling", "editables"]


def resolve(requirements: list[str]) -> dict[str, str]:
    """Name and version of everything that pip would install for `requirements`, beside nothing."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *requirements], check=True)
        found = json.loads(report.read_text("utf-8"))["install"]
    return {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in found}


def write(name: str, packages: dict[str, str], what: str) -> None:
    lines = [f"# {what}", "# Written by scripts/lock.py; install with --no-deps. Left out on purpose:"]
    lines += [f"#   {package}: {why}" for package, why in LEFT_OUT.items()]
    lines += [f"{package}=={version}" for package, version in sorted(packages.items()) if package not in LEFT_OUT]
    (ROOT / "requirements" / name).write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    cpu = [f"{r}+cpu" if r.startswith("torch==") else r for r in extras["cpu"]]
    runtime = [*project["dependencies"], *cpu, *extras["server"], *extras["train"], *extras["eval"], *BUILD]
    everything = resolve([*runtime, *extras["dev"]])
    base = resolve(
        runtime + [f"{name}=={version}" for name, version in everything.items() if name in ("pydantic", "numpy")]
    )
    write(
        "cpu.txt", {n: everything[n] for n in base}, "Generation and training without a GPU: what `make demo` installs."
    )
    write(
        "dev.txt", {n: v for n, v in everything.items() if n not in base}, "What tests and checks need beside cpu.txt."
    )


if __name__ == "__main__":
    main()
