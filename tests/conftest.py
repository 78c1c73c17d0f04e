"""What all tests share: how hypothesis looks for examples, and where policy engines end."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is no defect of an example, and what CI decides must not depend on dice.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Beside those of ``engines`` and ``http``, these make policy engines too.
_MAKE_ENGINES = {"approvals", "config", "core", "gates", "policies", "sinks", "stores"}


@pytest.fixture(scope="module", autouse=True)
def _engines_end_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """An engine must end on the thread that made it, so nothing may be collected on another."""
    if request.path.parent.name not in _MAKE_ENGINES:
        yield
        return
    gc.disable()
    yield
    gc.collect()
    gc.enable()
