"""The command `cai`: one file a command group; a group's file is imported only when one of its commands is used."""

from __future__ import annotations
