"""`cai label agreement | aggregate | route`: what labels are worth, and which to ask for next."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
            ("cai label aggregate runs/demo --axis helpful", "what people said of a run's pairs"),
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
    from cai.cli.label_tables import show_agreement
    from cai.labels.table import read_votes

    if source.is_dir():
        report = people.agreement_of_run(source, seed=seed)
    else:
        names = [word.strip() for word in order.split(",") if word.strip()]
        report = people.agreement_of_table(read_votes(source, order=names), seed=seed)
    if report.get("left_out"):
        _warn(f"{report['left_out']} labels are of texts or pairs that have changed since and were left out")
    if json:
        print_json(report)
    else:
        show_agreement(report)


@reports_errors
def aggregate(
    source: Annotated[
        Path,
        typer.Argument(
            help="Votes: columns task, worker, label (CSV, JSONL, Parquet); or the folder of a run.", metavar="RUN|FILE"
        ),
    ],
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            help="majority, weighted or dawid_skene; or as `cai merge` calls the first two: strict, reliability.",
        ),
    ] = "majority",
    axis: Annotated[str, typer.Option("--axis", help="Of a run: the axis of the labels.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="JSONL, a row a task.")] = None,
    json: Json = False,
) -> None:
    """What many people's votes come to: a distribution a task, and how far each person can be relied on."""
    from cai import people
    from cai.labels.aggregate import aggregate as consensus
    from cai.labels.table import read_votes
    from cai.store import encode, replacing

    found = consensus(people.votes_of_run(source, axis=axis) if source.is_dir() else read_votes(source), policy)
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
    if report["set_aside"]:
        print(f"{report['set_aside']} of them were set aside by the last merge and need one more person")
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
