"""Processes of this program's own: how they are started, and what little of the environment they get."""

from __future__ import annotations

import os
import sys

# Nothing else: the environment holds secrets, and policies that may do anything get none.
_PASSED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")


def command(module: str, *arguments: str) -> tuple[str, ...]:
    """What runs one of this program's modules."""
    # -P: a folder named proxy, wherever this was started, is not this program.
    return (sys.executable, "-P", "-m", module, *arguments)


def environment(**more: str) -> dict[str, str]:
    """The environment of such a process."""
    return {name: os.environ[name] for name in _PASSED if name in os.environ} | more
