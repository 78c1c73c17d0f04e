"""The seam that fails closed: whatever the guards are, and however they break."""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
import pytest

from proxy.guards.base import Context, Situation
from proxy.model import Principal, ToolCall
from proxy.pipeline import Pipeline, Watched
from proxy.ports import Unavailable
from proxy.record import Record
from proxy.verdicts import Allow, Break, Confirm, Deny, Effect, Verdict
from proxy.wire.chat import ChatCodec
from tests.core.harness import ListSink

CALL = ToolCall.parse("call_1", "get_user", '{"id":1}')


class Says:
    """A guard that says one thing, or breaks."""

    name: ClassVar[str] = "says"

    def __init__(self, word: Verdict | Exception) -> None:
        self.word = word

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        if isinstance(self.word, Exception):
            raise self.word
        return self.word


class FullSink:
    def write(self, record: Record) -> None:
        raise Unavailable("the disk is full")


def situation() -> Situation:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    request = ChatCodec().read(orjson.dumps(body))
    return Situation(Principal("ann"), request, "trace", "conversation", "2026-01-01T00:00:00Z", (CALL,))


def pipeline(*watched: Watched, sink: Any = None, **options: Any) -> Pipeline:
    return Pipeline(watched, sink or ListSink(), policy_revision=lambda: "r", config_digest="d", **options)


@pytest.mark.parametrize(
    "arguments", ['{"a":1,"a":2}', '{"a":NaN}', '{"a":', "[1]", '{"a":"\\ud800"}', '{"a":9007199254740993}']
)
@pytest.mark.parametrize(
    "watched",
    [(), (Watched(Says(Allow())),), (Watched(Says(Deny(reasons=("no",))), mode="shadow"),)],
    ids=["no guard", "a guard that allows", "a guard that is only watched"],
)
async def test_what_has_no_single_reading_is_never_forwarded(
    watched: tuple[Watched, ...], arguments: str
) -> None:
    call = ToolCall.parse("call_1", "get_user", arguments)
    ruling = await pipeline(*watched).judge(call, situation())
    assert ruling.effect is Effect.SETTLE
    assert ruling.verdict.reasons == (call.fault,)


@pytest.mark.parametrize("broken", [RuntimeError("secret"), Unavailable("secret"), KeyError("secret")])
async def test_a_guard_that_breaks_denies_and_tells_nothing(broken: Exception) -> None:
    ruling = await pipeline(Watched(Says(broken))).judge(CALL, situation())
    assert isinstance(ruling.verdict, Deny)
    assert "secret" not in ruling.result().content


async def test_unless_it_may_fail_open() -> None:
    watched = Watched(Says(RuntimeError("x")), on_error="allow")
    assert (await pipeline(watched).judge(CALL, situation())).effect is Effect.FORWARD


async def test_a_guard_that_is_only_watched_is_recorded_and_does_not_decide() -> None:
    sink = ListSink()
    watched = Watched(Says(Deny(reasons=("no",))), mode="shadow")
    ruling = await pipeline(watched, sink=sink).judge(CALL, situation())
    assert ruling.effect is Effect.FORWARD
    (record,) = sink.records
    assert [(step.verdict, step.shadow) for step in record.trail] == [("Deny", True)]


class ByName:
    """A guard that says one thing of each tool."""

    name: ClassVar[str] = "by_name"

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        words: dict[str, Verdict] = {
            "wait": Confirm(reasons=("ask",)),
            "stop": Break(reasons=("enough",)),
            "deny": Deny(reasons=("no",)),
        }
        return words.get(call.name, Allow())


FATES = [
    ("go go", True, "forward forward"),
    ("go deny", True, "forward settle"),
    ("go wait", True, "hold hold"),
    ("wait deny go", True, "hold settle hold"),
    ("go stop wait", True, "settle finish settle"),
    ("go wait", False, "forward settle"),
    ("go stop", False, "forward finish"),
    ("wait", False, "settle"),
    ("wait", True, "hold"),
]


def turn_of(names: str) -> list[ToolCall]:
    return [ToolCall.parse(f"call_{at}", name, "{}") for at, name in enumerate(names.split())]


@pytest.mark.parametrize(("names", "alone", "effects"), FATES)
async def test_of_each_call_it_is_recorded_what_its_turn_makes_of_it(
    names: str, alone: bool, effects: str
) -> None:
    sink = ListSink()
    rulings = await pipeline(Watched(ByName()), sink=sink).judge_turn(turn_of(names), situation(), alone)
    records: Any = sink.records
    assert [record.effect for record in records] == effects.split()
    for record, ruling in zip(records, rulings, strict=True):
        assert (record.arguments_forwarded is not None) == (record.effect == "forward")
        assert record.reasons[: len(ruling.verdict.reasons)] == ruling.verdict.reasons
        changed = record.effect != ruling.effect
        assert (len(record.reasons) > len(ruling.verdict.reasons)) is changed, "another fate says why"


class FillsUp(ListSink):
    """Takes some records, and then no more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, record: Record) -> None:
        if len(self.records) >= self.room:
            raise Unavailable("the disk is full")
        super().write(record)


@pytest.mark.parametrize("names", ["go wait", "go go wait", "go stop", "go wait go"])
@pytest.mark.parametrize("room", [0, 1, 2, 3])
async def test_what_is_forwarded_is_recorded_so_even_where_the_log_fills_up(names: str, room: int) -> None:
    sink = FillsUp(room)
    rulings = await pipeline(Watched(ByName()), sink=sink).judge_turn(turn_of(names), situation())
    recorded: Any = {record.call_id: record.effect for record in sink.records}
    if not {ruling.effect for ruling in rulings} & {Effect.HOLD, Effect.FINISH}:
        going = [ruling.call.id for ruling in rulings if ruling.effect is Effect.FORWARD]
        assert all(recorded.get(id) == "forward" for id in going)


@pytest.mark.parametrize(("on_failure", "effect"), [("deny", Effect.SETTLE), ("allow", Effect.FORWARD)])
async def test_what_cannot_be_recorded_is_not_forwarded(on_failure: Any, effect: Effect) -> None:
    ruling = await pipeline(sink=FullSink(), on_audit_failure=on_failure).judge(CALL, situation())
    assert ruling.effect is effect
