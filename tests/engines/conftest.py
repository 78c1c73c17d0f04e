"""The engines that the contract holds for: a new one joins by its name and a way to give it policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.engines.policyset import PolicySet
from proxy.engines.regorus import RegorusEngine

ENGINES: dict[str, Callable[[PolicySet], Any]] = {"regorus": RegorusEngine}


@pytest.fixture(params=ENGINES)
def start(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Starts an engine with these modules and data."""

    def started(modules: dict[str, str], data: dict[str, Any] | None = None) -> Any:
        return ENGINES[request.param](PolicySet.of(modules, data))

    return started
