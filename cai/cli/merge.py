"""`cai merge`: people's labels into the judge's preferences, under a stated policy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cai.cli.common import Json, examples, print_json, reports_errors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        rich_help_panel="People",
        epilog=examples(
            ("cai merge runs/demo", "people first, the judge as a pseudo-count"),
            ("cai merge runs/demo --policy strict", "people alone"),
            ("cai merge runs/demo --diff fused", "which pairs another policy would flip; writes nothing"),
            ("cai merge runs/demo --policy my-policy.yaml", "your own rule"),
        ),
    )(merge)


@reports_errors
def merge(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    policy: Annotated[
        str,
        typer.Option("--policy", help="strict, human_first, reliability, dawid_skene, fused, or a .yaml file."),
    ] = "human_first",
    diff: Annotated[str, typer.Option("--diff", help="Another policy: list the pairs it would flip.")] = "",
    json: Json = False,
) -> None:
    """Merge people's labels and the AI judge's into one preference a pair and axis.

    A pure function of the label events, the judge's preferences and the policy. Axes never merge; where people are
    divided, the pair is set aside for one more person. `cai why RUN ID` shows each vote's part.
    """
    from cai import merging

    if diff:
        found = merging.differ(run, policy, diff)
        if json:
            print_json({"from": policy, "to": diff, "flips": found})
            return
        print(f"{len(found)} pairs change from {policy} to {diff}")
        for row in found:
            told = [_side(row[end]) for end in ("from", "to")]
            axis = f" {row['axis']}" if row["axis"] else ""
            print(f"  {row['comparison_id']}{axis}: {told[0]} -> {told[1]}")
        return
    report = merging.merge_run(run, policy)
    for warning in report["warnings"]:
        print(f"cai: warning: {warning}", file=sys.stderr)
    if json:
        print_json(report)
        return
    counts = ", ".join(f"{name} {count}" for name, count in report["by_source"].items())
    print(
        f"{report['preferences']} preferences ({counts}) from {report['labels']} labels of "
        f"{report['annotators']} people"
    )
    print(
        f"{report['changed']} chosen otherwise than the judge chose; "
        + (
            ", ".join(f"{count} set aside ({name})" for name, count in report["quarantined"].items())
            or "none set aside"
        )
    )
    for name, written in report["formats"].items():
        print(f"{written['rows']} rows in {run / 'preferences-merged' / name}")


def _side(row: dict[str, object]) -> str:
    p = row["p_a"]
    return f"{row['status']}" if p is None else f"{row['status']} p(a) {p:.2f} [{row['source']}]"
