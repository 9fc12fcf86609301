"""Principles and constitutions: their files, how they are loaded, checked, compared, drawn from and exchanged."""

from cai.constitution.load import Bound, Constitution, load_constitution
from cai.constitution.model import Principle

__all__ = ["Bound", "Constitution", "Principle", "load_constitution"]
