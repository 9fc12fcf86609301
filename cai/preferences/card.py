"""The card of a preference data set: its README.md, which `datasets` and the Hugging Face Hub read too.

A pure function of its input, as `cai.stages.card` is, whose tables and escaping it shares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cai.preferences import formats
from cai.preferences.formats import Format
from cai.preferences.writing import PreferenceCounts, renamed
from cai.stages.card import ModelUsed
from cai.stages.cardtext import CITATION, HUB_LICENSES, SIZES, inline, one_line, paragraphs, ranked, table
from cai.stages.export import SPLITS, utf8
from cai.stages.select import REASONS
from cai.stages.votestats import VoteReport, VoteStats

_TAGS = ("constitutional-ai", "rlaif", "preference", "synthetic")


@dataclass(frozen=True, kw_only=True)
class PreferenceCardInfo:
    """What the card tells. Every text may hold anything; it is escaped.

    Attributes:
        name: of the data set, for people.
        counts: as `write_preferences` returned them.
        rename: as it was given to `write_preferences`.
        recipe: its settings in brief (judges, rule of the panel, selection), in the order to show them.
        principles: titles of the principles, by id.
        judges: models that voted, and those that wrote the answers.
        votes: how the judges behaved.
        license: of this data set; empty when the recipe does not say (shown as unknown).
        prompt_licenses: licences and sources of the prompts, a line each.
        left_out: preferences that gave no row, by reason, as `select` counts them.
        failed: prompts given up, by reason.
    """

    name: str
    counts: PreferenceCounts
    rename: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    principles: Mapping[str, str] = field(default_factory=dict)
    judges: Sequence[ModelUsed] = ()
    votes: VoteReport | None = None
    description: str = ""
    license: str = ""
    prompt_licenses: Sequence[str] = ()
    language: Sequence[str] = ()
    tags: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, int] = field(default_factory=dict)


def preference_card(info: PreferenceCardInfo) -> str:
    """README.md of the folder that `write_preferences` wrote, ready to upload.

    Its header makes `datasets.load_dataset(folder)` read the Parquet files where there are any, else the JSONL files.
    """
    chosen = formats.load(info.counts.format)
    parts = [
        f"---\n{_header(info, chosen)}---\n",
        f"# {inline(info.name)}\n",
        *_what(info, chosen),
        *_how(info),
        *_counts(info),
        *_mind(info, chosen),
        *_licences(info),
        "## Citation\n\nThe method is Constitutional AI, [arXiv 2212.08073](https://arxiv.org/abs/2212.08073).\n\n"
        f"{CITATION}\n",
    ]
    return utf8("\n".join(parts))


def _header(info: PreferenceCardInfo, chosen: Format) -> str:
    head: dict[str, Any] = {"pretty_name": one_line(info.name)}
    licence = one_line(info.license).lower()
    head["license"] = licence if licence in HUB_LICENSES.split() else "other" if licence else "unknown"
    if head["license"] == "other":
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence).strip("-") or "other"
    if info.language:
        head["language"] = [one_line(code) for code in info.language]
    head["task_categories"] = ["text-generation", "reinforcement-learning"]
    head["tags"] = list(dict.fromkeys([*_TAGS, *map(one_line, info.tags)]))
    head["size_categories"] = [next((name for limit, name in SIZES if info.counts.rows < limit), "n>1B")]
    kind = "parquet" if chosen.PARQUET else "jsonl"
    files = [{"split": s, "path": f"{s}.{kind}"} for s in SPLITS if info.counts.by_split.get(s)]
    if files:
        head["configs"] = [{"config_name": "default", "default": True, "data_files": files}]
    return utf8(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=10**9))


def _what(info: PreferenceCardInfo, chosen: Format) -> list[str]:
    counts = info.counts
    splits = [s for s in SPLITS if counts.by_split.get(s)]
    empty = [s for s in SPLITS if s not in splits]
    lines = [
        "## What it is\n",
        f"Pairs of answers of which one is preferred, {counts.preferences:,} pairs in {counts.rows:,} rows, made by "
        f"`cai`. Format `{counts.format}`: {chosen.DESCRIPTION}\n",
    ]
    if info.description.strip():
        lines.append(paragraphs(info.description) + "\n")
    if splits:
        lines.append(
            '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("PATH/OF/THIS/FOLDER")\n```\n'
        )
    if empty:
        lines.append(f"No row fell into: {', '.join(empty)}; there is no file for it.\n")
    columns = renamed(chosen.COLUMNS, info.rename)
    lines.append(table(("column", "meaning"), [(f"`{column.name}`", column.meaning) for column in columns]))
    if chosen.LOST:
        names = ", ".join(f"`{name}`" for name in chosen.LOST)
        lines.append(f"The format does not carry these fields of a preference: {names}.\n")
    return lines


def _how(info: PreferenceCardInfo) -> list[str]:
    lines = ["## How it was made\n"]
    if info.judges:
        rows = [tuple(map(inline, (m.role, m.name, m.fingerprint))) for m in info.judges]
        lines.append(table(("role", "model", "fingerprint"), rows))
    if info.recipe:
        lines.append(table(("setting", "value"), [(inline(k), inline(v)) for k, v in info.recipe.items()]))
    named = {**dict.fromkeys(info.principles, 0), **info.counts.by_principle}
    if named:
        rows_by = [(inline(k), inline(info.principles.get(k, "")), n) for k, n in named.items()]
        lines.append(table(("principle asked", "title", "pairs"), rows_by))
    if info.votes is not None:
        lines += _votes(info.votes)
    return lines


def _votes(report: VoteReport) -> list[str]:
    head = ("", "votes", "failed", "first slot", "position bias", "flips", "ties", "decisiveness", "agreement")
    named = [("all", report.overall), *((inline(name), stats) for name, stats in report.by_judge.items())]
    principles = [(inline(name) or "the judge's own question", stats) for name, stats in report.by_principle.items()]
    return [
        "How the judges behaved, each share with the number it is a share of. A judge without position bias prefers "
        "what it is shown first in half of the cases; flips are questions whose verdict changed with the order; "
        "agreement is with a label that these votes made.\n",
        table(head, [_line(name, stats) for name, stats in named]),
        table(("principle", *head[1:]), [_line(name, stats) for name, stats in principles]),
        *_panel(report),
    ]


def _panel(report: VoteReport) -> list[str]:
    if report.disagreement is None:
        return []
    return [
        f"Several judges looked at {report.panels:,} pairs; their labels differ by {report.disagreement:.3f} bits of 1 "
        "in the mean (Jensen-Shannon divergence).\n"
    ]


def _line(name: str, stats: VoteStats) -> tuple[Any, ...]:
    def share(value: float | None, n: int, pattern: str = "{:.3f}") -> str:
        return "" if value is None else f"{pattern.format(value)} ({n:,})"

    return (
        name,
        stats.votes,
        stats.votes - stats.verdicts,
        share(stats.first_slot_rate, stats.ordered),
        share(stats.position_bias, stats.ordered, "{:+.3f}"),
        share(stats.flip_rate, stats.both_orders),
        share(stats.tie_rate, stats.verdicts),
        share(stats.decisiveness, stats.verdicts),
        share(stats.agreement, stats.labelled),
    )


def _counts(info: PreferenceCardInfo) -> list[str]:
    counts = info.counts
    splits = [(s, counts.by_split.get(s, 0), counts.prompts.get(s, 0), counts.groups.get(s, 0)) for s in SPLITS]
    lines = ["## Counts\n", table(("split", "pairs", "prompts", "groups"), splits)]
    axes = [(inline(k) or "(the judge's own question)", n) for k, n in counts.by_axis.items()]
    lines.append(table(("axis", "pairs"), axes))
    lines.append(table(("chosen answer is", "pairs"), counts.longer.items()))
    lines.append(table(("source of the label", "pairs"), [(inline(k), n) for k, n in counts.by_source.items()]))
    if counts.by_tag:
        lines.append(table(("tag of the prompt", "pairs"), [(inline(k), n) for k, n in counts.by_tag.items()]))
    why = [(inline(k), REASONS.get(k, ""), n) for k, n in ranked(info.left_out)]
    why += [(inline(k), "the format cannot carry it", n) for k, n in ranked(counts.left_out)]
    if why:
        lines.append(table(("preference left out", "because", "pairs"), why))
    if info.failed:
        given_up = [(inline(k), n) for k, n in ranked(info.failed)]
        lines.append(table(("prompt given up (quarantined)", "prompts"), given_up))
    return lines


def _mind(info: PreferenceCardInfo, chosen: Format) -> list[str]:
    points = [
        "The labels are what models judged, unless `source` says otherwise. They are soft: a probability near 0.5 says "
        "that the judges hardly told the answers apart. Read a sample before training.",
        "Rejected answers can be harmful, and so can chosen ones: better is not good.",
        "Prompts may be offensive or dangerous on purpose (red teaming).",
        "Pairs of one group share their answers. Count, split and bootstrap by prompt, never by row. The split here is "
        "by opening: conversations whose first user turn is the same are on one side; paraphrases may be on both.",
    ]
    if len(info.counts.by_axis) > 1:
        points.append(
            "Axes measure different things: one pair can be labelled either way on two of them. Choose a mix."
        )
    if any(column.name == "margin" for column in chosen.COLUMNS):
        points.append("Trainers of reward models can subtract `margin` in their loss; remove it for the plain loss.")
    if info.counts.by_status.get("tie"):
        points.append(f"{info.counts.by_status['tie']:,} pairs are ties: for soft labels, not for DPO.")
    if info.counts.mended:
        points.append(f"In {info.counts.mended:,} pairs, broken characters (lone surrogates) became U+FFFD.")
    return ["## What to mind\n", "\n".join(f"- {point}" for point in points) + "\n"]


def _licences(info: PreferenceCardInfo) -> list[str]:
    lines = ["## Licences\n", f"This data set: {inline(info.license) or 'not stated in the recipe'}.\n"]
    if info.prompt_licenses:
        lines.append("The prompts:\n")
        lines.append("\n".join(f"- {paragraphs(one_line(text))}" for text in info.prompt_licenses) + "\n")
    else:
        lines.append("The prompts: not stated in the recipe.\n")
    lines.append("The licences of the models that wrote the answers may bind their use as well.\n")
    return lines
