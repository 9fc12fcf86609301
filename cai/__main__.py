"""`python -m cai`, which is what `accelerate launch -m cai` starts."""

from cai.cli.main import app

if __name__ == "__main__":
    app()
