"""What the modules here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.protocols import check_shared_tools


@pytest.fixture(scope="module", autouse=True)
def shared_tools_stay_as_they_are() -> Iterator[None]:
    """Requests share the tools that came before: nothing that is done with one may change them."""
    yield
    check_shared_tools()
