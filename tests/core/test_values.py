"""Values: what is equal is one to sets and mappings, and nobody sets their fields."""

from __future__ import annotations

from dataclasses import replace

from proxy.model import ToolCall, Usage
from proxy.record import Step
from proxy.verdicts import Allow, Deny


def test_what_is_equal_is_hashed_alike() -> None:
    assert len({Step("loop", "Allow", 1), Step("loop", "Allow", 1), Step("loop", "Allow", 2)}) == 2
    assert len({Allow(), Allow(reasons=()), Deny()}) == 2
    assert hash(Usage(1, 2)) == hash(Usage(1, 2))


def test_a_value_is_changed_by_making_another() -> None:
    call = ToolCall.parse("c", "f", "{}")
    other = replace(call, name="g")
    assert (call.name, other.name) == ("f", "g")
    assert other != call


def test_the_type_checker_keeps_values_as_they_are() -> None:
    step = Step("loop", "Allow", 1)
    # Were this no error to the type checker, the comment would be one: it allows none that it does not need.
    step.micros = 2  # type: ignore[misc]
    assert "__setattr__" not in vars(Step), "and no request pays for it"
