"""A candidate's files: followed while Callgate serves, faults told, and an end within bounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.engines.evaluating.evaluator import Evaluator
from proxy.engines.following.loading import loaded
from proxy.engines.sources.policyset import PolicySet
from proxy.engines.trial import trying as module
from proxy.engines.trial.candidate import Candidate
from proxy.engines.trial.trying import CandidateFollower
from proxy.gates.comparing import PACKAGES
from tests.engines.test_candidate import document

CALL = PACKAGES[0]
ALLOW = 'package callgate.call\n\ndecision := {"effect": "allow"}\n'
DENY = 'package callgate.call\n\ndecision := {"effect": "deny"}\n'
HANG = """package callgate.call
default decision := {"effect": "allow"}
decision := {"effect": "deny"} if {
	input.call.name == "hang"
	some i in numbers.range(1, 30000)
	some j in numbers.range(1, 30000)
	i * j == -1
}
"""


@asynccontextmanager
async def following(
    folder: Path, **options: float
) -> AsyncIterator[tuple[Candidate, CandidateFollower, asyncio.Event]]:
    candidate = Candidate(lambda record: None, **options)  # type: ignore[arg-type]
    follower = CandidateFollower(candidate, lambda: loaded([folder]), [folder], settle_ms=50)
    stop = asyncio.Event()
    await follower.start()
    task = asyncio.ensure_future(follower.run(stop))
    try:
        yield candidate, follower, stop
    finally:
        stop.set()
        await task
        await follower.close()


async def until(done: Callable[[], object], change: Callable[[], object] = lambda: None) -> None:
    """Make a change, again until it is seen: the first may come before the watch stands."""
    while not done():
        change()
        for _ in range(20):
            if done():
                return
            await asyncio.sleep(0.02)


def offer(candidate: Candidate, name: str = "read") -> None:
    candidate.offer(CALL, document(name), {"effect": "allow"}, "r")


async def test_edited_files_are_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.rego"
    file.write_text(ALLOW)
    async with following(tmp_path) as (candidate, follower, _):
        await until(lambda: candidate.revision)
        first = candidate.revision
        await until(lambda: candidate.revision != first, lambda: file.write_text(DENY))
        offer(candidate)
        await until(lambda: candidate.outcomes[CALL, "stricter"])
        assert follower.notes() == []


async def test_faults_are_told_and_the_last_good_ones_are_asked(tmp_path: Path) -> None:
    file = tmp_path / "a.rego"
    file.write_text(ALLOW)
    async with following(tmp_path) as (candidate, follower, _):
        await until(lambda: candidate.revision)
        await until(lambda: follower.faults, lambda: file.write_text("package x\n\np if {"))
        (note,) = follower.notes()
        assert note.startswith("policies.candidate: the last good ones are asked; ")
        assert "a.rego" in note
        offer(candidate)
        await until(lambda: candidate.outcomes[CALL, "same"])
        await until(lambda: not follower.faults, lambda: file.write_text(DENY))


async def test_a_folder_that_is_not_there_is_told_and_asked_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_AGAIN_S", 0.05)
    folder = tmp_path / "later" / "policies"
    async with following(folder) as (candidate, follower, _):
        await until(lambda: follower.faults)
        (note,) = follower.notes()
        assert "none are asked" in note
        assert "no such file" in note
        offer(candidate)
        assert candidate.outcomes[CALL, "failed"] == 1
        folder.mkdir(parents=True)
        (folder / "a.rego").write_text(ALLOW)
        await until(lambda: candidate.revision)
        await until(lambda: not follower.notes())


async def test_what_was_asked_before_the_end_is_answered(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(ALLOW)
    async with following(tmp_path) as (candidate, _, stop):
        await until(lambda: candidate.revision)
        for _ in range(50):
            offer(candidate)
        stop.set()
    assert candidate.outcomes[CALL, "same"] == 50


async def test_one_that_hangs_is_ended_within_bounds_and_what_is_left_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DRAIN_S", 0.2)
    (tmp_path / "a.rego").write_text(HANG)
    async with following(tmp_path, timeout_s=60) as (candidate, _, stop):
        await until(lambda: candidate.revision)
        for _ in range(20):
            offer(candidate, "hang")
        began = time.monotonic()
        stop.set()
    assert time.monotonic() - began < 5
    assert candidate.outcomes[CALL, "dropped"] == 20


async def test_an_end_while_the_files_are_proven_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.rego").write_text(HANG.replace('input.call.name == "hang"', "true"))
    begun = asyncio.Event()
    start = Evaluator.start

    async def told(self: Evaluator, policy_set: PolicySet) -> object:
        begun.set()
        return await start(self, policy_set)

    monkeypatch.setattr(Evaluator, "start", told)
    async with following(tmp_path) as (candidate, _, stop):
        await begun.wait()
        began = time.monotonic()
        stop.set()
    assert time.monotonic() - began < 5
    assert candidate.revision == ""


async def test_whatever_loading_raises_the_rest_goes_on(tmp_path: Path) -> None:
    async def broken() -> PolicySet:
        raise RuntimeError("not a fault of the policies")

    candidate = Candidate(lambda record: None)
    follower = CandidateFollower(candidate, broken, [tmp_path])
    await follower.reload()
    assert follower.notes() == ["policies.candidate: none are asked; they could not be loaded (RuntimeError)"]
