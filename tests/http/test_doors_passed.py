"""Routes that an operator opens."""

from __future__ import annotations

import pytest

from proxy.app import build
from proxy.config import ConfigFault, Settings
from proxy.http.doors import Disposition, DoorTable


@pytest.mark.parametrize(
    ("passed", "path", "disposition"),
    [
        ((), "/v1/files", "refused"),
        (("/files",), "/v1/files", "passed"),
        (("/files",), "/v1/files/file-1/content", "refused"),
        (("/files", "/files/*"), "/v1/files/file-1/content", "passed"),
        ((), "/v1/fine_tuning/jobs", "refused"),
        (("/fine_tuning/*",), "/v1/fine_tuning/jobs", "passed"),
        (("/fine_tuning/*",), "/v1/chat/completions", "judged"),
    ],
)
def test_what_is_named_is_passed(passed: tuple[str, ...], path: str, disposition: str) -> None:
    door, _ = DoorTable(passed=passed).find(path)
    assert door.disposition is Disposition(disposition)


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/responses/*", "/messages"])
def test_what_is_judged_cannot_be_passed(path: str) -> None:
    settings = Settings.model_validate({"doors": {"passed": [path]}})
    with pytest.raises(ConfigFault, match=r"doors\.passed: .* is judged"):
        build(settings, {})


@pytest.mark.parametrize("path", ["files", "/v1/files", "", "/a b", "/x?y"])
def test_what_is_no_route_is_a_fault(path: str) -> None:
    with pytest.raises(ValueError, match="passed"):
        Settings.model_validate({"doors": {"passed": [path]}})
