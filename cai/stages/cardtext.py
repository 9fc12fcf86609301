"""What the cards of all data sets share: Markdown from texts that may hold anything, and facts of the Hub."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cai.stages.export import utf8

# What the Hub knows by these ids; any other licence is "other" with a name.
HUB_LICENSES = """
agpl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 c-uda epl-2.0 etalab-2.0
eupl-1.2 gemma gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 llama3.2 llama3.3 mit mpl-2.0
odbl odc-by openrail openrail++ osl-3.0 pddl unknown unlicense wtfpl zlib
"""

# The Hub's size categories: rows below, and the category's name.
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
)

CITATION = """```bibtex
@article{bai2022constitutional,
  title   = {Constitutional AI: Harmlessness from AI Feedback},
  author  = {Bai, Yuntao and Kadavath, Saurav and Kundu, Sandipan and Askell, Amanda and others},
  journal = {arXiv preprint arXiv:2212.08073},
  year    = {2022}
}
```"""


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first, equals by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers to the right. Text cells come escaped (`inline`)."""
    body = [tuple(row) for row in rows]
    numbers = [bool(body) and all(isinstance(row[i], int) for row in body) for i in range(len(head))]
    lines = [tuple(head), tuple("---:" if number else "---" for number in numbers)]
    lines += [tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def one_line(value: Any) -> str:
    """Any value as text on one line, without control characters and overrides of the writing direction."""
    line = " ".join(utf8(str(value)).split())
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "\ufffd", line)


def inline(value: Any) -> str:
    """Any value as literal text in one line of Markdown, in a table too."""
    text = html.escape(one_line(value), quote=False)
    # An underscore between letters is one; anywhere else it may begin emphasis.
    return re.sub(r"([\\`*\[\]|#~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def paragraphs(text: str) -> str:
    """Literal text, its paragraphs kept; what would begin a list, a rule or a heading does not."""
    blocks = [inline(block) for block in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(re.sub(r"^(\d*)([-+=.)])", r"\1\\\2", block) for block in blocks if block)
