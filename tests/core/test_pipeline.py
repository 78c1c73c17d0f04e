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
from proxy.verdicts import Allow, Deny, Effect, Verdict
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


@pytest.mark.parametrize(("on_failure", "effect"), [("deny", Effect.SETTLE), ("allow", Effect.FORWARD)])
async def test_what_cannot_be_recorded_is_not_forwarded(on_failure: Any, effect: Effect) -> None:
    ruling = await pipeline(sink=FullSink(), on_audit_failure=on_failure).judge(CALL, situation())
    assert ruling.effect is effect
