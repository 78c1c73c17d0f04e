"""The servers are those of the tests of the HTTP side; the Node clients are installed once."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.http.conftest import _collected_here, before, pytest_asyncio_loop_factories, serve

__all__ = ["_collected_here", "before", "pytest_asyncio_loop_factories", "serve"]

INSTALL = Path(__file__).parents[2] / "scripts/node-clients"
INSTALL_S = 280


@pytest.fixture(scope="session")
def node() -> str:
    """The path of Node. Without one the tests fail: what half of the users run would go untested unseen."""
    found = subprocess.run(
        ["sh", str(INSTALL)], capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if found.returncode:
        pytest.fail(found.stderr, pytrace=False)
    return found.stdout.strip()
