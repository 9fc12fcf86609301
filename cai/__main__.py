"""`python -m cai`, which is what `accelerate launch -m cai` starts."""

from cai.processes import no_teardown

if __name__ == "__main__":
    with no_teardown():
        from cai.cli.main import app

        app()
