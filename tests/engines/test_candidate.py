"""A candidate: asked beside what is in force, compared and counted, and never in its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.engines.evaluating.compiling import MINIMAL_INPUT
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.engines.trial.candidate import OUTCOMES, Candidate, Shadowed
from proxy.gates.comparing import PACKAGES
from proxy.ports import Unavailable, asking
from proxy.record import DifferenceRecord

CALL, REQUEST, TOOLS, RESULT = PACKAGES

LIVE = {
    "call.rego": """package callgate.call
decision := {"effect": "deny", "reasons": ["not dropped"]} if input.call.name == "drop"
decision := {"effect": "allow"} if input.call.name in {"read", "hang", "write"}
decision := {"effect": "allow", "reasons": [1 / input.call.arguments.zero]} if input.call.name == "break"
""",
    "tools.rego": 'package callgate.tools\ndecision := {"hide": ["drop"]}\n',
    "request.rego": 'package callgate.request\ndecision := {"effect": "allow", "strip": ["mcp"]}\n',
}
CANDIDATE = {
    "call.rego": """package callgate.call
decision := {"effect": "deny", "reasons": ["never dropped"]} if input.call.name == "drop"
decision := {"effect": "confirm", "reasons": ["ask first"]} if input.call.name == "write"
decision := {"effect": "allow"} if input.call.name in {"read", "break"}
decision := {"effect": "maybe"} if input.call.name == "odd"
decision := {"effect": "deny"} if {
	input.call.name == "hang"
	some i in numbers.range(1, 30000)
	some j in numbers.range(1, 30000)
	i * j == -1
}
""",
    "tools.rego": 'package callgate.tools\ndecision := {"hide": []}\n',
}


def document(name: str = "", **arguments: Any) -> dict[str, Any]:
    call = {"id": "c1", "name": name, "arguments": arguments}
    return {**MINIMAL_INPUT, "call": call, "batch": [call]}


class Trial:
    """A candidate beside an engine, and what it told."""

    def __init__(self, **options: Any) -> None:
        self.records: list[DifferenceRecord] = []
        self.live = RegorusEngine(PolicySet.of(LIVE))
        self.candidate = Candidate(self.records.append, **{"timeout_s": 0.3, **options})
        self.engine = Shadowed(self.live, self.candidate)

    async def close(self) -> None:
        await self.candidate.close()
        await self.live.close()

    async def ask(self, package: str, input: Mapping[str, Any]) -> Any:
        return await self.engine.decide(package, input)

    def outcomes(self, package: str = CALL) -> dict[str, int]:
        return {outcome: n for outcome in OUTCOMES if (n := self.candidate.outcomes[package, outcome])}

    async def settled(self, asked: int) -> None:
        """Wait until so many questions have an outcome; bounded by the test's own time-out."""
        while sum(self.candidate.outcomes.values()) < asked:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def trying(modules: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Trial]:
    trial = Trial(**options)
    running = asyncio.ensure_future(trial.candidate.run())
    try:
        await trial.candidate.put(PolicySet.of(modules or CANDIDATE))
        yield trial
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await trial.close()


# package, the tool that is called, what becomes of it
OUTCOME_OF = [
    (CALL, "read", "same"),
    (CALL, "write", "stricter"),
    (CALL, "drop", "reworded"),
    (CALL, "unknown", "same"),
    (CALL, "odd", "failed"),
    (CALL, "hang", "failed"),
    (TOOLS, "", "looser"),
    (REQUEST, "", "looser"),
]


@pytest.mark.parametrize(("package", "name", "outcome"), OUTCOME_OF)
async def test_what_is_decided_is_compared(package: str, name: str, outcome: str) -> None:
    async with trying() as trial:
        input = document(name)
        assert await trial.ask(package, input) == await trial.live.decide(package, input)
        await trial.settled(1)
        assert trial.outcomes(package) == {outcome: 1}
        told = [] if outcome in ("same", "failed") else [outcome]
        assert [record.change for record in trial.records] == told


async def test_what_the_live_policies_cannot_decide_still_fails_and_is_compared_as_the_denial_it_is() -> None:
    async with trying() as trial:
        with pytest.raises(Unavailable, match="cannot decide"):
            await trial.ask(CALL, document("break", zero=0))
        await trial.settled(1)
        assert trial.outcomes() == {"looser": 1}
        assert trial.records[0].live["effect"] == "deny"


async def test_what_nobody_waits_for_any_more_is_not_asked() -> None:
    class Slow(RegorusEngine):
        async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
            await asyncio.sleep(60)

    trial = Trial()
    engine = Shadowed(Slow(PolicySet.of(LIVE)), trial.candidate)
    deciding = asyncio.ensure_future(engine.decide(CALL, document("read")))
    await asyncio.sleep(0)
    deciding.cancel()
    await asyncio.gather(deciding, return_exceptions=True)
    trial.candidate.refuse()  # what waits would be counted as failed
    assert trial.outcomes() == {}
    await trial.close()


async def test_a_difference_says_who_what_and_by_which_policies() -> None:
    async with trying() as trial:
        asking.set("trace-7")
        input = document("write") | {
            "principal": {"id": "ann", "roles": ["ops"], "tenant": "t", "claims": {"iss": "x"}},
            "conversation": {"id": "conv", "query": "", "turn": 1},
            "time": "2026-01-02T03:04:05Z",
        }
        await trial.ask(CALL, input)
        await trial.settled(1)
        assert trial.records == [
            DifferenceRecord(
                time="2026-01-02T03:04:05Z",
                trace_id="trace-7",
                conversation_id="conv",
                principal={"id": "ann", "roles": ["ops"], "tenant": "t"},
                package=CALL,
                tool="write",
                call_id="c1",
                change="stricter",
                live={"effect": "allow", "reasons": [], "obligations": {}},
                candidate={"effect": "confirm", "reasons": ["ask first"], "obligations": {}},
                revision=trial.live.revision,
                candidate_revision=PolicySet.of(CANDIDATE).revision,
            )
        ]


async def test_without_policies_on_calls_a_candidate_denies_every_call() -> None:
    async with trying({"tools.rego": CANDIDATE["tools.rego"]}) as trial:
        await trial.ask(CALL, document("read"))
        await trial.settled(1)
        assert trial.outcomes() == {"stricter": 1}


async def test_a_candidate_that_hangs_delays_nothing() -> None:
    async with trying() as trial:
        for _ in range(3):
            trial.candidate.offer(CALL, document("hang"), {"effect": "allow"}, "r")
        took: list[float] = []
        began = time.monotonic()
        while time.monotonic() - began < 0.9:  # as long as all three evaluations may take
            before = time.perf_counter()
            assert await trial.ask(CALL, document("read")) == {"effect": "allow"}
            took.append(time.perf_counter() - before)
            await asyncio.sleep(0)
        took.sort()
        # Evaluations that held the loop would each take all of their 0.3 s; the machine may be busy once.
        assert took[-2] < 0.15
        assert took[len(took) // 2] < 0.005
        assert trial.outcomes()["dropped" if "dropped" in trial.outcomes() else "failed"] > 0


async def test_to_offer_a_question_takes_microseconds_and_never_waits() -> None:
    async with trying() as trial:
        input = document("hang")
        took = []
        for _ in range(900):
            before = time.perf_counter()
            trial.candidate.offer(CALL, input, {"effect": "allow"}, "r")
            took.append(time.perf_counter() - before)
        assert sorted(took)[450] < 200e-6


async def test_what_does_not_fit_is_dropped_and_counted() -> None:
    async with trying(max_questions=5) as trial:
        for _ in range(20):
            trial.candidate.offer(CALL, document("read"), {"effect": "allow"}, "r")
        assert trial.outcomes() == {"dropped": 15}
        await trial.settled(20)
        assert trial.outcomes() == {"same": 5, "dropped": 15}


async def test_large_questions_are_bounded_together() -> None:
    async with trying(max_question_bytes=10_000) as trial:
        for _ in range(3):
            trial.candidate.offer(CALL, document("read", text="x" * 4000), {"effect": "allow"}, "r")
        # Each holds its call twice: once as the call, once in the batch.
        assert trial.outcomes() == {"dropped": 2}
        await trial.settled(3)
        trial.candidate.offer(CALL, document("read", text="x" * 4000), {"effect": "allow"}, "r")
        await trial.settled(4)
        assert trial.outcomes() == {"same": 2, "dropped": 2}


async def test_what_cannot_be_written_fails_alone() -> None:
    async with trying() as trial:
        trial.candidate.offer(CALL, document("read", text=object()), {"effect": "allow"}, "r")
        trial.candidate.offer(CALL, document("read", text="\ud800"), {"effect": "allow"}, "r")
        assert trial.outcomes() == {"failed": 2}


async def test_each_revision_is_asked_from_its_turn_on() -> None:
    async with trying() as trial:
        await trial.ask(CALL, document("write"))
        await trial.settled(1)
        await trial.candidate.put(PolicySet.of(LIVE))
        while trial.candidate.revision != trial.live.revision:
            await asyncio.sleep(0.005)
        await trial.ask(CALL, document("write"))
        await trial.settled(2)
        assert trial.outcomes() == {"stricter": 1, "same": 1}


async def test_what_cannot_serve_leaves_the_last_good_ones_asked() -> None:
    async with trying() as trial:
        with pytest.raises(PolicyFault):
            await trial.candidate.put(PolicySet.of({"a.rego": "package x {"}))
        trial.candidate.refuse()
        await trial.ask(CALL, document("write"))
        await trial.settled(1)
        assert trial.outcomes() == {"stricter": 1}


async def test_where_none_can_be_asked_questions_fail_at_once() -> None:
    trial = Trial()
    await trial.ask(CALL, document("read"))
    assert trial.outcomes() == {}
    trial.candidate.refuse()
    await trial.ask(CALL, document("read"))
    assert trial.outcomes() == {"failed": 2}
    await trial.close()


async def test_a_fault_is_told_until_it_is_over() -> None:
    async with trying() as trial:
        await trial.ask(CALL, document("hang"))
        await trial.settled(1)
        assert trial.candidate.fault is not None
        asked = 1
        while trial.candidate.fault is not None:  # it may be asked while its process is started again
            asked += 1
            await trial.ask(CALL, document("read"))
            await trial.settled(asked)
        assert trial.outcomes()["same"] == 1


async def test_a_log_that_breaks_ends_nothing() -> None:
    def broken(record: DifferenceRecord) -> None:
        raise RuntimeError("the disk is gone")

    trial = Trial()
    trial.candidate._write = broken
    running = asyncio.ensure_future(trial.candidate.run())
    await trial.candidate.put(PolicySet.of(CANDIDATE))
    for name in ("write", "read"):
        await trial.ask(CALL, document(name))
    await trial.settled(2)
    assert trial.outcomes() == {"same": 1, "failed": 1}
    trial.candidate.stop()
    await running
    await trial.close()


async def test_the_live_engine_is_seen_through_the_shadow() -> None:
    trial = Trial()
    assert trial.engine.revision == trial.live.revision
    for package in PACKAGES:
        assert trial.engine.defines(package) == trial.live.defines(package)
        assert trial.engine.reads(package) == trial.live.reads(package)
