"""The evaluator: decisions of another process, which is ended when an evaluation does not end itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.engines.evaluating import evaluation
from proxy.engines.evaluating.compiling import MINIMAL_INPUT
from proxy.engines.evaluating.evaluator import Evaluator, Overrun
from proxy.engines.regorus import RegorusEngine, encoded
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.ports import Unavailable

ROOT = Path(__file__).parents[2]

# Does what the call's name says.
OBEDIENT = """package callgate.call

default decision := {"effect": "allow"}

decision := {"effect": "deny", "reasons": [input.call.id]} if input.call.name == "deny"

decision := {"effect": "deny"} if {
	input.call.name == "hang"
	some i in numbers.range(1, 30000)
	some j in numbers.range(1, 30000)
	i * j == -1
}

decision := {"effect": "deny"} if {
	input.call.name == "grow"
	count([n | some n in numbers.range(1, 300000000)]) == 1
}

decision := {"effect": "deny", "reasons": [concat(",", [text | some text in numbers.range(1, 300000)])]} if {
	input.call.name == "fail"
}

decision := {"effect": "deny", "reasons": numbers.range(1, 300000)} if input.call.name == "long"
"""


def asking(name: str, call_id: str = "") -> bytes:
    return encoded({"call": {"name": name, "id": call_id}}).encode()


@pytest.fixture
async def evaluator() -> AsyncIterator[Evaluator]:
    evaluator = Evaluator(max_memory_bytes=512 << 20)
    await evaluator.start(PolicySet.of({"call.rego": OBEDIENT}))
    yield evaluator
    await evaluator.close()


async def decided(evaluator: Evaluator, name: str, timeout_s: float = 20.0, call_id: str = "") -> Any:
    return await evaluator.decide("callgate.call", asking(name, call_id), timeout_s)


async def test_it_decides_as_the_engine_in_the_process_does() -> None:
    policy_set = PolicySet.load([ROOT / "policies"])
    engine, evaluator = RegorusEngine(policy_set), Evaluator()
    ready = await evaluator.start(policy_set)
    try:
        for package in ready.packages:
            assert engine.defines(package)
            assert ready.reads[package] == engine.reads(package)
            aside = await evaluator.decide(package, encoded(MINIMAL_INPUT).encode(), 20)
            assert aside == await engine.decide(package, MINIMAL_INPUT)
    finally:
        await evaluator.close()


async def test_answers_belong_to_their_questions(evaluator: Evaluator) -> None:
    answers = await asyncio.gather(*(decided(evaluator, "deny", call_id=f"c{n}") for n in range(50)))
    assert [answer["reasons"] for answer in answers] == [[f"c{n}"] for n in range(50)]


async def test_what_is_not_defined_is_none(evaluator: Evaluator) -> None:
    assert await evaluator.decide("callgate.tools", b"{}", 20) is None


@pytest.mark.parametrize("name", ["fail", "long"])
async def test_a_fault_is_told_and_the_process_goes_on(evaluator: Evaluator, name: str) -> None:
    before = evaluator.pid
    with pytest.raises(Unavailable) as raised:
        await decided(evaluator, name)
    assert not isinstance(raised.value, Overrun)
    assert await decided(evaluator, "ok") == {"effect": "allow"}
    assert evaluator.pid == before


@pytest.mark.parametrize(("name", "timeout_s"), [("hang", 0.3), ("grow", 20.0)])
async def test_what_exceeds_its_bounds_is_killed_and_the_next_question_answered(
    evaluator: Evaluator, name: str, timeout_s: float
) -> None:
    before = evaluator.pid
    assert before is not None
    with pytest.raises(Overrun):
        await decided(evaluator, name, timeout_s)
    assert not alive(before)
    assert await decided(evaluator, "ok") == {"effect": "allow"}
    assert evaluator.pid != before
    assert evaluator.restarts == 1


async def test_the_loop_goes_on_while_an_evaluation_hangs(evaluator: Evaluator) -> None:
    hanging = asyncio.ensure_future(decided(evaluator, "hang", 0.5))
    gaps, last = [], time.perf_counter()
    while not hanging.done():
        await asyncio.sleep(0)
        now = time.perf_counter()
        gaps.append(now - last)
        last = now
    assert max(gaps) < 0.25
    assert isinstance(hanging.exception(), Overrun)


async def test_who_always_hangs_rests_before_it_is_started_again(evaluator: Evaluator) -> None:
    for _ in range(20):
        with pytest.raises(Unavailable) as raised:
            await decided(evaluator, "hang", 0.2)
        if "again and again" in str(raised.value):
            break
    else:
        pytest.fail("it was started again at once each time")
    assert evaluator.pid is None
    assert evaluator.restarts >= 1


async def test_who_hangs_now_and_then_is_started_again_at_once(evaluator: Evaluator) -> None:
    for _ in range(3):
        with pytest.raises(Overrun):
            await decided(evaluator, "hang", 0.2)
        assert await decided(evaluator, "ok") == {"effect": "allow"}


async def test_who_stops_waiting_costs_nobody_else_anything(evaluator: Evaluator) -> None:
    before = evaluator.pid
    waiting = [asyncio.ensure_future(decided(evaluator, "deny", call_id=f"c{n}")) for n in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    answers = await asyncio.gather(*waiting[1::2])
    assert [answer["reasons"] for answer in answers] == [[f"c{n}"] for n in range(1, 10, 2)]
    assert (await decided(evaluator, "deny", call_id="last"))["reasons"] == ["last"]
    assert evaluator.pid == before


async def test_a_process_that_is_killed_is_started_again(evaluator: Evaluator) -> None:
    assert evaluator.pid is not None
    os.kill(evaluator.pid, signal.SIGKILL)
    with pytest.raises(Overrun, match="SIGKILL"):
        await decided(evaluator, "ok")
    assert await decided(evaluator, "ok") == {"effect": "allow"}


async def test_it_ends_only_as_it_is_told_to(evaluator: Evaluator) -> None:
    pid = evaluator.pid
    assert pid is not None
    # As an init system stops all processes of a service: this one may still have requests to end.
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert await decided(evaluator, "ok") == {"effect": "allow"}
    assert evaluator.pid == pid


async def test_it_steps_back_behind_others() -> None:
    evaluator = Evaluator(niceness=7)
    await evaluator.start(PolicySet.of({"call.rego": OBEDIENT}))
    assert evaluator.pid is not None
    try:
        behind = min(os.getpriority(os.PRIO_PROCESS, 0) + 7, 19)
        assert os.getpriority(os.PRIO_PROCESS, evaluator.pid) == behind
        assert Path(f"/proc/{evaluator.pid}/oom_score_adj").read_text() == "1000\n"
    finally:
        await evaluator.close()


def test_a_sandbox_that_forbids_to_step_back_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def forbidden(*given: object) -> None:
        tried.append(given[-1])
        raise PermissionError

    monkeypatch.setattr(os, "nice", forbidden)
    monkeypatch.setattr(Path, "write_text", forbidden)
    evaluation._step_back(10)
    assert tried == [10, "1000"]


@pytest.mark.parametrize(("hard", "set_to"), [(-1, 4096), (8192, 4096), (1024, 1024)])
def test_a_lower_limit_stays(monkeypatch: pytest.MonkeyPatch, hard: int, set_to: int) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(evaluation.resource, "getrlimit", lambda kind: (hard, hard))
    monkeypatch.setattr(evaluation.resource, "setrlimit", lambda kind, both: limits.append(both))
    evaluation._bound(evaluation.resource.RLIMIT_AS, 4096)
    assert limits == [(set_to, set_to)]


@pytest.mark.parametrize("steps", [*range(12), 20, 50])
async def test_a_start_that_is_given_up_leaves_no_process(steps: int) -> None:
    evaluator = Evaluator()
    starting = asyncio.ensure_future(evaluator.start(PolicySet.of({"call.rego": OBEDIENT})))
    for _ in range(steps):
        await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await evaluator.close()
    assert evaluator.pid is None
    assert not children()


async def test_an_end_while_a_process_is_ended_leaves_none(evaluator: Evaluator) -> None:
    hanging = asyncio.ensure_future(decided(evaluator, "hang", 0.1))
    while evaluator.pid is not None:  # until it has begun to be ended
        await asyncio.sleep(0)
    await evaluator.close()
    assert not children()
    assert isinstance((await asyncio.gather(hanging, return_exceptions=True))[0], Unavailable)


async def test_closing_kills_what_hangs_and_tells_who_waits(evaluator: Evaluator) -> None:
    pid = evaluator.pid
    assert pid is not None
    waiting = [asyncio.ensure_future(decided(evaluator, "hang")) for _ in range(3)]
    await asyncio.sleep(0.05)
    await evaluator.close()
    assert not alive(pid)
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, Unavailable)
    with pytest.raises(Unavailable):
        await decided(evaluator, "ok")


FAULTY = {
    "syntax": ("package callgate.call\ndecision := {", 20.0, "a.rego:2"),
    "no end": (OBEDIENT.replace('input.call.name == "hang"\n', ""), 0.8, "did not answer within"),
    "too large": (OBEDIENT.replace('input.call.name == "grow"\n', ""), 20.0, "SIGABRT"),
}


@pytest.mark.parametrize(("rego", "timeout_s", "fault"), FAULTY.values(), ids=FAULTY)
async def test_policies_that_cannot_be_proven_within_the_bounds_are_faulty(
    rego: str, timeout_s: float, fault: str
) -> None:
    evaluator = Evaluator(max_memory_bytes=512 << 20, start_timeout_s=timeout_s)
    with pytest.raises(PolicyFault, match=fault):
        await evaluator.start(PolicySet.of({"a.rego": rego}))
    assert evaluator.pid is None


LEFT_BEHIND = """
import asyncio, sys
from proxy.engines.evaluating.evaluator import Evaluator
from proxy.engines.sources.policyset import PolicySet
from tests.engines.test_evaluator import OBEDIENT, asking

async def main():
    evaluator = Evaluator()
    await evaluator.start(PolicySet.of({"call.rego": OBEDIENT}))
    print(evaluator.pid, flush=True)
    await evaluator.decide("callgate.call", asking(sys.argv[1]), 1.5)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("name", ["ok", "hang"])
async def test_the_process_does_not_outlive_who_started_it(name: str) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEFT_BEHIND, name), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    pid = int(await starter.stdout.readline())
    begun = ticks(pid)
    while name == "hang" and ticks(pid) < begun + 20:  # until it has evaluated for a while
        await asyncio.sleep(0.02)
    starter.kill()
    await starter.communicate()
    while alive(pid):
        await asyncio.sleep(0.05)


async def test_the_process_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    evaluator = Evaluator()
    await evaluator.start(PolicySet.of({"call.rego": OBEDIENT}))
    try:
        assert b"sk-secret" not in Path(f"/proc/{evaluator.pid}/environ").read_bytes()
    finally:
        await evaluator.close()


def children() -> list[int]:
    """The evaluators that this process has started and that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def ticks(pid: int) -> int:
    """How long the process has run, in hundredths of a second."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def alive(pid: int) -> bool:
    try:
        # A child that nobody has waited for yet is dead all the same.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
