"""Make the pictures of the labelling page in docs/images anew, from the shipped prompts and made-up answers.

    python scripts/screenshots.py

Needs Chromium (Debian: apt-get install chromium) and the development environment.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images"
RECIPE = """
name: pictures
prompts: [{{path: {prompts}, limit: 12}}]
models: {{policy: {{backend: scripted}}}}
revise: {{rounds: 1}}
sample: {{sources: [{{count: 2}}]}}
judge: {{axes: [helpful, harmless]}}
"""
PICTURES = (
    ("label-page", {"width": 1200, "height": 900}, "light"),
    ("label-page-dark", {"width": 1200, "height": 900}, "dark"),
    ("label-page-phone", {"width": 390, "height": 844}, "light"),
)


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium here")
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = RECIPE.format(prompts=ROOT / "examples" / "prompts.jsonl")
        (folder / "recipe.yaml").write_text(recipe, "utf-8")
        cai = [sys.executable, "-m", "cai"]
        subprocess.run([*cai, "run", str(folder / "recipe.yaml"), "--run-dir", str(folder / "run")], check=True)
        serve = [*cai, "label", "serve", str(folder / "run"), "--annotators", "ann", "--port", "0"]
        process = subprocess.Popen(serve, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        link = next(line.split(" ", 1)[1].strip() for line in process.stderr if line.startswith("ann: http"))
        try:
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                for picture, size, scheme in PICTURES:
                    context = browser.new_context(viewport=size, color_scheme=scheme)
                    page = context.new_page()
                    page.goto(link)
                    page.wait_for_selector("article")
                    page.keyboard.press("3")
                    page.screenshot(path=OUT / f"{picture}.png")
                    context.close()
                browser.close()
        finally:
            process.terminate()
            process.wait(30)


if __name__ == "__main__":
    main()
