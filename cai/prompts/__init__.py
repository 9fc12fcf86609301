"""Prompts: read from the formats people have, cleared of duplicates, counted."""

from cai.prompts.read import read_prompts, read_rows
from cai.prompts.rows import BadRow, ReadOptions

__all__ = ["BadRow", "ReadOptions", "read_prompts", "read_rows"]
