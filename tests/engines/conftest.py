"""The engines that the contract holds for: a new one joins by its name and a way to give it policies."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet

ROOT = Path(__file__).parents[2]

# Time for a loaded machine: what is large is decided in a process that has to be started first.
ENGINES: dict[str, Callable[[PolicySet], Any]] = {"regorus": partial(RegorusEngine, timeout_s=30.0)}


@pytest.fixture(scope="module", autouse=True)
def _collected_here() -> Iterator[None]:
    """An engine must end on the thread that made it; asyncio waits for processes on threads of its own."""
    gc.disable()
    yield
    gc.collect()
    gc.enable()


@pytest.fixture(params=ENGINES)
async def start(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Starts an engine with these modules and data, and closes it."""
    engines = []

    def started(modules: dict[str, str], data: dict[str, Any] | None = None) -> Any:
        engines.append(ENGINES[request.param](PolicySet.of(modules, data)))
        return engines[-1]

    yield started
    for engine in engines:
        await engine.close()


@pytest.fixture(scope="session")
def opa() -> str:
    """The binary; without one, this fails and says where to get it."""
    found = subprocess.run([str(ROOT / "scripts/opa")], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip().splitlines()[-1]
