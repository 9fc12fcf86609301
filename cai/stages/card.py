"""The card of an SFT data set: its README.md, which `datasets` and the Hugging Face Hub read too.

A pure function of its input: no date, no host, so that writing it again gives the same bytes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from cai.constitution.load import Constitution
from cai.faults import FLAGS
from cai.stages.export import COLUMNS, REASONS, SPLITS, SftCounts, utf8

# Licences by the names that the Hub knows; any other is written as `other` with its name, as the Hub wants it.
_HUB_LICENSES = """
agpl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 c-uda epl-2.0 etalab-2.0
eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 mit mpl-2.0
odbl odc-by openrail openrail++ osl-3.0 pddl unknown unlicense wtfpl zlib
"""

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)

_TAGS = ("constitutional-ai", "rlaif", "synthetic")

_MEANINGS = {"revision": "an answer revised under the constitution", "unrevised": "an answer as the model gave it"}

_CITATION = """```bibtex
@article{bai2022constitutional,
  title   = {Constitutional AI: Harmlessness from AI Feedback},
  author  = {Bai, Yuntao and Kadavath, Saurav and Kundu, Sandipan and Askell, Amanda and others},
  journal = {arXiv preprint arXiv:2212.08073},
  year    = {2022}
}
```"""


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
        f"# {_inline(info.name)}\n",
        *_what(info),
        *_how(info),
        *_counts(info),
        *_mind(info),
        *_licences(info),
        f"## Citation\n\nThe method is Constitutional AI, [arXiv 2212.08073](https://arxiv.org/abs/2212.08073).\n\n{_CITATION}\n",
    ]
    return utf8("\n".join(parts))


def _header(info: CardInfo) -> str:
    head: dict[str, Any] = {"pretty_name": _one_line(info.name)}
    licence = _one_line(info.license)
    if licence.lower() in _HUB_LICENSES.split():
        head["license"] = licence.lower()
    elif licence:
        head["license"] = "other"
        head["license_name"] = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-") or "other"
    else:
        head["license"] = "unknown"
    if info.language:
        head["language"] = [_one_line(code) for code in info.language]
    head["task_categories"] = ["text-generation"]
    head["tags"] = list(dict.fromkeys([*_TAGS, *map(_one_line, info.tags)]))
    head["size_categories"] = [next((name for limit, name in _SIZES if info.counts.rows < limit), "n>1B")]
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
        lines.append(_paragraphs(info.description) + "\n")
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
    lines.append(_table(("column", "meaning"), [(f"`{name}`", meaning) for name, _, meaning in COLUMNS]))
    return lines


def _how(info: CardInfo) -> list[str]:
    constitution, counts = info.constitution, info.counts
    known = {bound.id for bound in constitution.principles}
    principles: list[tuple[Any, ...]] = [
        (
            f"`{b.id}`",
            _inline(b.principle.title),
            f"`{b.level.name}`",
            f"{b.weight:g}",
            counts.by_principle.get(b.id, 0),
        )
        for b in constitution.principles
    ]
    # A run that went on after its constitution changed holds rows of principles that are no longer in it.
    principles += [
        (_inline(i), "not in this constitution", "", "", n) for i, n in counts.by_principle.items() if i not in known
    ]
    lines = ["## How it was made\n"]
    if info.models:
        rows = [tuple(map(_inline, (m.role, m.name, m.fingerprint))) for m in info.models]
        lines.append(_table(("role", "model", "fingerprint"), rows))
    if info.recipe:
        lines.append(_table(("setting", "value"), [(_inline(k), _inline(v)) for k, v in info.recipe.items()]))
    lines.append(
        f"Constitution `{constitution.name}`, content hash `{constitution.hash}`. Rows by the principle they asked:\n"
    )
    lines.append(_table(("principle", "title", "level", "weight", "rows"), principles))
    return lines


def _counts(info: CardInfo) -> list[str]:
    counts = info.counts
    splits = [(s, counts.by_split.get(s, 0), counts.prompts.get(s, 0)) for s in SPLITS]
    kinds = [(f"`{k}`", _MEANINGS.get(k, ""), n) for k, n in counts.by_kind.items()]
    lines = ["## Counts\n", _table(("split", "rows", "prompts"), splits), _table(("kind", "", "rows"), kinds)]
    lines.append(_table(("round", "rows"), counts.by_round.items()))
    lines.append(_table(("model fingerprint", "rows"), [(_inline(k), n) for k, n in counts.by_model.items()]))
    if counts.by_tag:
        lines.append(_table(("tag of the prompt", "rows"), [(_inline(k), n) for k, n in counts.by_tag.items()]))
    if info.left_out:
        why = [(_inline(k), REASONS.get(k, ""), n) for k, n in _ranked(info.left_out)]
        lines.append(_table(("response left out", "because", "responses"), why))
    if info.quarantined:
        given_up = [(_inline(k), n) for k, n in _ranked(info.quarantined)]
        lines.append(_table(("prompt given up (quarantined)", "prompts"), given_up))
    else:
        lines.append("No prompt was given up.\n")
    if info.flags:
        flags = [(_inline(k), _inline(FLAGS.get(k, "")), n) for k, n in _ranked(info.flags)]
        lines.append(_table(("flag found", "meaning", "responses"), flags))
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
    licence = _inline(info.license) or "not stated in the recipe"
    lines = ["## Licences\n", f"This data set: {licence}.\n"]
    if info.prompt_licenses:
        lines.append("The prompts:\n")
        lines.append("\n".join(f"- {_paragraphs(_one_line(text))}" for text in info.prompt_licenses) + "\n")
    else:
        lines.append("The prompts: not stated in the recipe.\n")
    lines.append("The licences of the models that wrote the answers may bind their use as well.\n")
    return lines


def _ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers to the right. Text cells come escaped (`_inline`)."""
    body = [tuple(row) for row in rows]
    numbers = [bool(body) and all(isinstance(row[i], int) for row in body) for i in range(len(head))]
    lines = [tuple(head), tuple("---:" if number else "---" for number in numbers)]
    lines += [tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _one_line(value: Any) -> str:
    """Any value as text on one line, without control characters and overrides of the writing direction."""
    line = " ".join(utf8(str(value)).split())
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", line)


def _inline(value: Any) -> str:
    """Any value as literal text in one line of Markdown, in a table too."""
    text = html.escape(_one_line(value), quote=False)
    # An underscore between letters is one; anywhere else it may begin emphasis.
    return re.sub(r"([\\`*\[\]|#~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def _paragraphs(text: str) -> str:
    """Literal text, its paragraphs kept; what would begin a list, a rule or a heading does not."""
    blocks = [_inline(block) for block in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", block) for block in blocks if block)
