"""`cai label agreement | aggregate | route`: what labels are worth, and which to ask for next."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cai.cli.common import Json, examples, print_json, reports_errors

AllLabels = Annotated[
    bool, typer.Option("--all-labels", help="All labelled pairs are a random sample, whatever the run's record says.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `cai label`."""
    app.command(
        epilog=examples(
            ("cai label agreement runs/demo", "by axis and principle, annotators, beside the judge"),
            ("cai label agreement votes.csv --json", "a file with the columns task, worker, label"),
        )
    )(agreement)
    app.command(
        epilog=examples(
            ("cai label aggregate votes.csv --policy dawid_skene --json", "distribution a task, reliability a worker"),
            ("cai label aggregate votes.parquet --out consensus.jsonl", "a row a task"),
        )
    )(aggregate)
    app.command(
        epilog=examples(
            ("cai label route runs/demo --n 100 --out next.jsonl", "the pairs that people should see next"),
            ("cai label route runs/demo --certify 0.9", "from which certainty on the judge may label alone"),
            ("cai label serve runs/demo --items next.jsonl", "and let people label them"),
        )
    )(route)
    app.command(
        epilog=examples(
            ("cai label winrate runs/demo cool", "the source `cool` of the recipe's samples against the rest")
        )
    )(winrate)


@reports_errors
def agreement(
    source: Annotated[Path, typer.Argument(help="Folder of a run, or a file of votes.", metavar="RUN|FILE")],
    order: Annotated[str, typer.Option("--order", help="Labels in their order, for ordinal alpha: a,tie,b.")] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the bootstrap.")] = 0,
    json: Json = False,
) -> None:
    """How far people agree beyond chance, who does not seem to read, and how the AI judge compares.

    Intervals are 95 %, by bootstrap over prompts.
    """
    from cai import people
    from cai.labels.table import read_votes

    if source.is_dir():
        report = people.agreement_of_run(source, seed=seed)
    else:
        names = [word.strip() for word in order.split(",") if word.strip()]
        report = people.agreement_of_table(read_votes(source, order=names), seed=seed)
    if json:
        print_json(report)
    else:
        _show_agreement(report)


@reports_errors
def aggregate(
    file: Annotated[Path, typer.Argument(help="Votes: columns task, worker, label (CSV, JSONL, Parquet).")],
    policy: Annotated[str, typer.Option("--policy", help="majority, weighted or dawid_skene.")] = "majority",
    out: Annotated[Path | None, typer.Option("--out", help="JSONL, a row a task.")] = None,
    json: Json = False,
) -> None:
    """What many people's votes come to: a distribution a task, and how far each person can be relied on."""
    from cai.labels.aggregate import aggregate as consensus
    from cai.labels.table import read_votes
    from cai.store import encode, replacing

    found = consensus(read_votes(file), policy)
    if out is not None:
        with replacing(out) as target:
            for row in found.rows():
                target.write(encode(row))
    if json:
        print_json({"policy": policy, "steps": found.steps, "tasks": found.rows(), "workers": found.workers()})
        return
    print(f"{len(found.table)} votes, {len(found.table.tasks)} tasks, {len(found.table.workers)} workers: {policy}")
    if found.table.repeated:
        print(f"{found.table.repeated} votes were replaced by a later one of the same worker", file=sys.stderr)
    for row in found.workers()[:20]:
        print(f"  {row['worker']}: reliability {row['reliability']:.2f} from {row['votes']} votes")
    if out is not None:
        print(f"rows in {out}")


@reports_errors
def route(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    n: Annotated[int, typer.Option("--n", min=1, help="Pairs to choose.")] = 100,
    out: Annotated[Path | None, typer.Option("--out", help="JSONL of the chosen pairs, for serve and export.")] = None,
    audit: Annotated[
        float, typer.Option("--audit", min=0, max=1, help="Share drawn at random, to check the judge without bias.")
    ] = 0.1,
    certify: Annotated[
        float | None, typer.Option("--certify", min=0.5, max=0.999, help="Agreement with people to promise.")
    ] = None,
    axis: Annotated[
        str | None, typer.Option("--axis", help="The only axis that matters; by default all, each by itself.")
    ] = None,
    every: AllLabels = False,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    json: Json = False,
) -> None:
    """Choose the pairs that people should see next, and say what their labels are expected to buy.

    Also, axis by axis: from which certainty on the judge may label alone at a promised agreement, and whether it may
    replace an annotator (alt-test). Both go by labels of pairs drawn at random; with --out the run records which.
    """
    from cai import routing

    report = routing.route_run(run, n, audit=audit, certify=certify, seed=seed, out=out, axis=axis, every=every)
    _warn(*(f"{name}: {told['warning']}" if name else told["warning"] for name, told in report["axes"].items()))
    if json:
        print_json(report)
        return
    print(f"{len(report['chosen'])} pairs chosen, {report['audit']} of them at random" + (f": {out}" if out else ""))
    for name, told in report["axes"].items():
        print(f"{name or 'overall'}: {told['labelled']} of {told['of']} pairs labelled")
        for point in told["curve"]:
            print(f"  with {point['labels']} more labels: {point['accuracy']:.1%} expected to be right")
        for part in ("judge", "certified", "alt_test"):
            print(f"  {part.replace('_', ' ')}: {told[part]['said']}")


@reports_errors
def winrate(
    run: Annotated[Path, typer.Argument(help="Folder of the run.", metavar="RUN")],
    source: Annotated[str, typer.Argument(help="Name of a source of samples.", metavar="SOURCE")],
    axis: Annotated[str, typer.Option("--axis", help="Axis of the labels.")] = "",
    every: AllLabels = False,
    json: Json = False,
) -> None:
    """How often people prefer one source's answers, from few labels of people and many of the judge.

    Prediction-powered inference: right whatever the judge is worth, if the labelled prompts are a random sample. Of a
    run that was routed, only labels of pairs drawn at random are used.
    """
    from cai import routing

    found = routing.win_rate(run, source, axis=axis, every=every)
    _warn(found["warning"])
    if json:
        print_json(found)
        return
    told, alone = found, found["classical"]
    print(f"{source} wins {told['mean']:.1%} ({told['ci'][0]:.1%} to {told['ci'][1]:.1%}, 95 %)")
    print(f"people's labels alone: {alone['mean']:.1%} ({alone['ci'][0]:.1%} to {alone['ci'][1]:.1%})")


def _warn(*lines: str) -> None:
    for line in lines:
        if line and not line.endswith(": "):
            print(f"cai: warning: {line}", file=sys.stderr)


# --- as people read it ------------------------------------------------------------------------------------------------


def _show_agreement(report: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    by = {name or "overall": part for name, part in report.get("axes", {"": report}).items()}
    by |= {f"principle {name}": part for name, part in report.get("principles", {}).items()}
    table = Table(title="How far people agree (95 % intervals)", title_justify="left")
    table.add_column("over")
    for name in ("votes", "tasks", "say the same", "alpha", "alpha, ordinal", "Gwet's AC1"):
        table.add_column(name, justify="right", no_wrap=True)
    keys = ("observed", "alpha_nominal", "alpha_ordinal", "ac1")  # the others are in --json
    for name, part in by.items():
        table.add_row(Text(name), str(part["votes"]), str(part["tasks"]), *(_cell(part[key]) for key in keys))
    console.print(table)
    if report.get("beside_the_judge"):
        table = Table(title="The AI judge beside people: agreement with a person's vote", title_justify="left")
        table.add_column("over")
        for name in ("votes", "judge", "other people", "difference"):
            table.add_column(name, justify="right")
        for row in report["beside_the_judge"]:
            cells = (_mean(row["judge"]), _mean(row["people"]), _mean(row["difference"], "+.2f"))
            table.add_row(Text(row["over"]), str(row["n"]), *cells)
        console.print(table)
    for kind, found in report.get("suspects", {}).items():
        for who, why in found.items():
            console.print(Text(f"look at {who} ({kind}): {why}", style="yellow"))


def _cell(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    ends = f" [{found['ci'][0]:.2f} {found['ci'][1]:.2f}]" if found["ci"] else ""
    return f"{found['value']:.2f}{ends}"


def _mean(found: Mapping[str, Any], form: str = ".2f") -> str:
    return f"{found['mean']:{form}} ({found['ci'][0]:{form}} to {found['ci'][1]:{form}})"
