"""What counts as one word of a text."""

from __future__ import annotations

UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts that put no blanks between words, inside a character class: Thai to Khmer, kana, Chinese characters."""

WORD = rf"[{UNSPACED}]|[^\W{UNSPACED}]+"
"""Pattern of one word; in scripts without blanks of one character, since a whole clause would be one word else."""
