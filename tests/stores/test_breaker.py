"""The circuit breaker: what it lets through, at every moment, checked against a plain model of its states."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.stores.breaker import Breaker, Paused


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class NoAnswer(Exception):
    pass


class Refusal(Exception):
    pass


def attempt(breaker: Breaker, outcome: Exception | None) -> bool:
    """Whether the question was asked."""
    try:
        with breaker.attempt():
            if outcome is not None:
                raise outcome
    except Paused:
        return False
    except (NoAnswer, Refusal):
        return True
    return True


@given(st.lists(st.sampled_from(["fail", "answer", "refuse", "wait"]), max_size=60))
def test_it_pauses_after_failures_in_a_row_and_probes_when_the_pause_is_over(steps: list[str]) -> None:
    clock = Clock()
    breaker = Breaker((NoAnswer,), failures=3, pause_s=10, clock=clock)
    failures, until = 0, None
    for step in steps:
        if step == "wait":
            clock.now += 6
            continue
        outcome = {"fail": NoAnswer(), "answer": None, "refuse": Refusal()}[step]
        asked = attempt(breaker, outcome)
        assert asked == (until is None or clock.now >= until)
        if asked and step == "fail":
            failures += 1
            until = clock.now + 10 if failures >= 3 else None
        elif asked:
            failures, until = 0, None
        assert breaker.open == (until is not None)


async def test_there_is_one_probe_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker((NoAnswer,), failures=1, pause_s=10, clock=clock)
    attempt(breaker, NoAnswer())
    clock.now = 10
    with breaker.attempt():
        assert not any(attempt(breaker, None) for _ in range(5))
    assert attempt(breaker, None)


async def test_a_probe_that_is_cancelled_leaves_the_next_one_free() -> None:
    clock = Clock()
    breaker = Breaker((NoAnswer,), failures=1, pause_s=10, clock=clock)
    attempt(breaker, NoAnswer())
    clock.now = 10
    with pytest.raises(asyncio.CancelledError), breaker.attempt():
        raise asyncio.CancelledError
    assert breaker.open
    assert attempt(breaker, None)
    assert not breaker.open


async def test_what_was_on_its_way_when_it_opened_may_still_close_it() -> None:
    breaker = Breaker((NoAnswer,), failures=1, pause_s=10, clock=Clock())
    with breaker.attempt():
        attempt(breaker, NoAnswer())
        assert breaker.open
    assert not breaker.open
