"""The card of an SFT data set: its README.md, which `datasets` and the Hugging Face Hub read too.

A pure function of its input: no date, no host, so that writing it again gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cai.constitution.load import Constitution
from cai.faults import FLAGS
from cai.stages.cardtext import CITATION, HUB_LICENSES, SIZES, inline, one_line, paragraphs, ranked, table
from cai.stages.export import COLUMNS, REASONS, SPLITS, SftCounts, utf8

# Licences by the names that the Hub knows; any other is written as `other` with its name, as the Hub wants it.
_TAGS = ("constitutional-ai", "rlaif", "synthetic")

_MEANINGS = {"revision": "an answer revised under the constitution", "unrevised": "an answer as the model gave it"}


@dataclass(frozen=True)
class ModelUsed:
    """A model that took part: what for (`draft`, `revise`, ...), its name, and its fingerprint."""

    role: str
    name: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class CardInfo:
    """What the card tells. Every text may hold anything; it is escaped.

    Attributes:
        name: of the data set, for people.
        counts: as `write_sft` returned them.
        recipe: its settings in brief, in the order to show them.
        license: of this data set; empty when the recipe does not say (shown as unknown).
        prompt_licenses: licences and sources of the prompts, a line each.
        language: codes of languages (`en`); none when the recipe does not say.
        tags: for the Hub, beside ours.
        quarantined: prompts given up, by reason.
        flags: responses by flag found, whether or not a retry mended them.
        left_out: responses that gave no row, by reason, as `sft_rows` counts them.
    """

    name: str
    counts: SftCounts
    constitution: Constitution
    models: Sequence[ModelUsed] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    license: str = ""
    prompt_licenses: Sequence[str] = ()
    language: Sequence[str] = ()
    tags: Sequence[str] = ()
    quarantined: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


def dataset_card(info: CardInfo) -> str:
    """README.md of the folder that `write_sft` wrote, ready to upload.

    Its header makes `datasets.load_dataset(folder)` read exactly the Parquet files that exist. JSONL cannot be a second
    configuration: `datasets` takes one format a folder; the text says how to load it with the same column types.
    """
    parts = [
        f"---\n{_header(info)}---\n",
        f"# {inline(info.name)}\n",
        *_what(info),
        *_how(info),
        *_counts(info),
        *_mind(info),
        *_licences(info),
        f"## Citation\n\nThe method is Constitutional AI, [arXiv 2212.08073](https://arxiv.org/abs/2212.08073).\n\n{CITATION}\n",
    ]
    return utf8("\n".join(parts))


def _header(info: CardInfo) -> str:
    head: dict[str, Any] = {"pretty_name": one_line(info.name)}
    licence = one_line(info.license)
    if licence.lower() in HUB_LICENSES.split():
        head["license"] = licence.lower()
    elif licence:
        head["license"] = "other"
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "other"
    else:
        head["license"] = "unknown"
    if info.language:
        head["language"] = [one_line(code) for code in info.language]
    head["task_categories"] = ["text-generation"]
    head["tags"] = list(dict.fromkeys([*_TAGS, *map(one_line, info.tags)]))
    head["size_categories"] = [next((name for limit, name in SIZES if info.counts.rows < limit), "n>1B")]
    files = [{"split": s, "path": f"{s}.parquet"} for s in SPLITS if info.counts.by_split.get(s)]
    if files:
        head["configs"] = [{"config_name": "default", "default": True, "data_files": files}]
    # One line a value: a `---` inside a folded value could end the header for readers that look for it line by line.
    return utf8(yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=10**9))


def _what(info: CardInfo) -> list[str]:
    counts = info.counts
    splits = [s for s in SPLITS if counts.by_split.get(s)]
    files = ", ".join(f'"{s}": "{s}.jsonl"' for s in splits)
    empty = [s for s in SPLITS if s not in splits]
    text = (
        f"Conversations for supervised fine-tuning, {counts.rows:,} rows, made by `cai` with the constitution "
        f"`{info.constitution.name}`: a model answers, criticises its answer by a principle, and revises it."
    )
    lines = ["## What it is\n", text + "\n"]
    if info.description.strip():
        lines.append(paragraphs(info.description) + "\n")
    if splits:
        lines.append(
            "```python\nfrom datasets import load_dataset\n\n"
            'data = load_dataset("PATH/OF/THIS/FOLDER")  # the Parquet files\n'
            "# The JSONL files hold the same rows. Give the types: an empty list does not tell its own.\n"
            f'same = load_dataset("json", data_dir="PATH/OF/THIS/FOLDER", data_files={{{files}}},\n'
            f'                    features=data["{splits[0]}"].features)\n```\n'
        )
    if empty:
        lines.append(f"No row fell into: {', '.join(empty)}; there is no file for it.\n")
    lines.append(table(("column", "meaning"), [(f"`{name}`", meaning) for name, _, meaning in COLUMNS]))
    return lines


def _how(info: CardInfo) -> list[str]:
    constitution, counts = info.constitution, info.counts
    known = {bound.id for bound in constitution.principles}
    principles: list[tuple[Any, ...]] = [
        (
            f"`{b.id}`",
            inline(b.principle.title),
            f"`{b.level.name}`",
            f"{b.weight:g}",
            counts.by_principle.get(b.id, 0),
        )
        for b in constitution.principles
    ]
    # A run that went on after its constitution changed holds rows of principles that are no longer in it.
    principles += [
        (inline(i), "not in this constitution", "", "", n) for i, n in counts.by_principle.items() if i not in known
    ]
    lines = ["## How it was made\n"]
    if info.models:
        rows = [tuple(map(inline, (m.role, m.name, m.fingerprint))) for m in info.models]
        lines.append(table(("role", "model", "fingerprint"), rows))
    if info.recipe:
        lines.append(table(("setting", "value"), [(inline(k), inline(v)) for k, v in info.recipe.items()]))
    lines.append(
        f"Constitution `{constitution.name}`, content hash `{constitution.hash}`. Rows by the principle they asked:\n"
    )
    lines.append(table(("principle", "title", "level", "weight", "rows"), principles))
    return lines


def _counts(info: CardInfo) -> list[str]:
    counts = info.counts
    splits = [(s, counts.by_split.get(s, 0), counts.prompts.get(s, 0)) for s in SPLITS]
    kinds = [(f"`{k}`", _MEANINGS.get(k, ""), n) for k, n in counts.by_kind.items()]
    lines = ["## Counts\n", table(("split", "rows", "prompts"), splits), table(("kind", "", "rows"), kinds)]
    lines.append(table(("round", "rows"), counts.by_round.items()))
    lines.append(table(("model fingerprint", "rows"), [(inline(k), n) for k, n in counts.by_model.items()]))
    if counts.by_tag:
        lines.append(table(("tag of the prompt", "rows"), [(inline(k), n) for k, n in counts.by_tag.items()]))
    if info.left_out:
        why = [(inline(k), REASONS.get(k, ""), n) for k, n in ranked(info.left_out)]
        lines.append(table(("response left out", "because", "responses"), why))
    if info.quarantined:
        given_up = [(inline(k), n) for k, n in ranked(info.quarantined)]
        lines.append(table(("prompt given up (quarantined)", "prompts"), given_up))
    else:
        lines.append("No prompt was given up.\n")
    if info.flags:
        flags = [(inline(k), inline(FLAGS.get(k, "")), n) for k, n in ranked(info.flags)]
        lines.append(table(("flag found", "meaning", "responses"), flags))
    return lines


def _mind(info: CardInfo) -> list[str]:
    points = [
        "A model wrote every answer, and a model criticised it. Nobody checked them: they can be wrong, "
        "and a revision can still break the principle it was asked to follow.",
        "The smaller the model, the more often a critique misses the point, and a revision is a refusal, boilerplate, "
        "or hardly differs from the draft. Read a sample before training.",
        "Prompts may be offensive or dangerous on purpose (red teaming). Answers to them are meant to be harmless, not "
        "guaranteed to be.",
        "Rows of one prompt share their conversation. Count and split by `prompt_id`, never by row. The split here is "
        "by opening: conversations whose first user turn is the same are on one side; paraphrases may be on both.",
    ]
    if info.counts.by_kind.get("unrevised"):
        points.append("Rows of kind `unrevised` are answers that nobody revised under the constitution.")
    if info.counts.mended:
        points.append(f"In {info.counts.mended:,} rows, broken characters (lone surrogates) became U+FFFD.")
    return ["## What to mind\n", "\n".join(f"- {point}" for point in points) + "\n"]


def _licences(info: CardInfo) -> list[str]:
    licence = inline(info.license) or "not stated in the recipe"
    lines = ["## Licences\n", f"This data set: {licence}.\n"]
    if info.prompt_licenses:
        lines.append("The prompts:\n")
        lines.append("\n".join(f"- {paragraphs(one_line(text))}" for text in info.prompt_licenses) + "\n")
    else:
        lines.append("The prompts: not stated in the recipe.\n")
    lines.append("The licences of the models that wrote the answers may bind their use as well.\n")
    return lines
