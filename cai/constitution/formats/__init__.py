"""Constitutions in other people's file formats: one module a format, found by its name.

A format's module promises:

- `PARTS`: the names of the files it can write, the default first;
- `read(sources, name) -> Imported`: several files merged into one constitution;
- `write(constitution, part) -> Exported`: one file's JSON, with a note for everything that it cannot carry.
"""
