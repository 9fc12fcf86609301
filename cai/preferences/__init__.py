"""Preference data in files: written for the libraries that train on it, and read from what others wrote.

`formats/` has one module a format. `write_preferences` and `read_preferences` know nothing of any of them.
"""

from cai.preferences.reading import read_preferences
from cai.preferences.writing import PreferenceCounts, write_preferences

__all__ = ["PreferenceCounts", "read_preferences", "write_preferences"]
