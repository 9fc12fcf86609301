"""Name = file: a backend (later a judge, a trainer, ...) is one module that offers `Config` and one function.

The registry is the folder; adding a file adds a name and touches nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from cai.errors import InputError
from cai.yamlfile import nearest


def names(package: str) -> list[str]:
    """Names available in `package` (`cai.backends`, ...), without importing any of them."""
    found = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(found.__path__) if not module.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """The module `package.name`.

    Raises:
        InputError: no such name; says which there are and which is nearest.
    """
    known = names(package)
    if name not in known:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        raise InputError(f"no {kind} {name!r}{nearest(name, known)}", mend=f"one of: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")
