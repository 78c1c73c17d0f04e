"""Requests and answers in which a member is of another type than it has to be have a reading, or are refused.

A refusal is the codec's own: any other error would be told as a fault of Callgate's.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.model import Failure, Passage, Request, ToolResult, Turn
from proxy.wire.codec import BadRequest, Caps, Ending, MalformedTurn
from proxy.wire.redefining import Redefinition
from tests.core.harness import run
from tests.core.protocols import PROTOCOLS

Json = dict[str, Any]
Place = tuple[str | int, ...]
KNOWN: Json = yaml.safe_load((Path(__file__).parent / "mistyped.yaml").read_text())
SECRET = b"sesame"


def nested(depth: int) -> list[Any]:
    value: list[Any] = ["x"]
    for _ in range(depth):
        value = [value]
    return value


# Beyond 254 levels the fast writer of JSON gives up.
VALUES: list[Any] = [None, 0, "", [], {}, True, {"x": {"type": []}}, nested(260)]
EVERY_VALUE = pytest.mark.parametrize("value", VALUES, ids=lambda value: json.dumps(value)[:20])
EVERY_API = pytest.mark.parametrize("protocol", PROTOCOLS)


def places(wire: Any, before: Place = ()) -> Iterator[Place]:
    """Where every value stands in a JSON value."""
    yield before
    inner = wire.items() if isinstance(wire, dict) else enumerate(wire) if isinstance(wire, list) else ()
    for key, value in inner:
        yield from places(value, (*before, key))


def with_value(wire: Any, place: Place, value: Any) -> Any:
    """The JSON value with another value at this place."""
    if not place:
        return value
    changed: Any = wire.copy()
    changed[place[0]] = with_value(wire[place[0]], place[1:], value)
    return changed


class Faults:
    """Errors that nobody should see, each once, with the first place that led to it."""

    def __init__(self) -> None:
        self.found: dict[str, Place] = {}

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 -- all of them at once say more than the first
            last = traceback.extract_tb(exc.__traceback__)[-1]
            self.found.setdefault(f"{exc!r:.200} at {last.filename}:{last.lineno}", place)


# -- requests ------------------------------------------------------------------------------------


def use(request: Request) -> None:
    """Ask all that is asked of a request, and change all that is changed in one."""
    codec = request.reader
    assert request.history.turn >= 0
    for result in request.results:
        assert isinstance(result.content, str)
    assert isinstance(request.continued, str)
    assert isinstance(request.scope, str)
    changes = (
        lambda: codec.without_tools(request, request.tools, request.hosted),
        lambda: codec.without_tools(request, [], request.hosted[:1]),
        lambda: codec.redefine(request, lambda _: Redefinition("Ours.", {"type": "object"})),
        lambda: codec.with_approval(request, request.hosted),
        lambda: codec.with_results(request, {result.key: "Redacted." for result in request.results}),
        lambda: codec.with_model(request, "other"),
        lambda: codec.with_guidance(request, "Mind the gap."),
        lambda: codec.forbid_tools(request, "Enough."),
        lambda: codec.flattened(request) or request,
        lambda: codec.extend(request, answered(request.protocol), RESULTS, relax=True),
        lambda: restored(request, answered(request.protocol)),
    )
    for change in changes:
        try:
            changed = change()
        except BadRequest:
            continue
        assert changed.raw


RESULTS = [ToolResult(id, '{"error": "No."}') for id in ("c1", "c2", "mcpr_1")]


@cache
def asked(protocol: str) -> Request:
    """The request with nothing wrong."""
    request: Request = PROTOCOLS[protocol].codec.read(json.dumps(KNOWN[protocol]["request"]).encode())
    return request


@cache
def answered(protocol: str) -> Turn:
    """The turn of an answer with nothing wrong."""
    _, turn = read(protocol, False, written(KNOWN[protocol]["bodies"][0], False))
    assert turn is not None
    assert len(turn.calls) > 1
    return turn


def restored(request: Request, turn: Turn) -> Request:
    """The request with what was kept of this turn put back wherever it can be."""
    codec = PROTOCOLS[request.protocol].codec
    told: list[str | None] = [None, *(call.arguments_json for call in turn.calls[1:])]
    ending = Ending((turn.id,), told, {0: "No."})
    settled = [ToolResult(call.id, "No.") for call in turn.calls[:1]]
    kept = codec.settlement(request, [(turn, RESULTS)], turn, settled, ending)
    if kept is None or not kept.handles:
        return request
    known = dict.fromkeys([*request.handles, *kept.handles], kept.kept)
    back: Request = codec.restore(request, known)
    return back


@EVERY_VALUE
@EVERY_API
def test_a_request_has_its_reading_or_is_refused(protocol: str, value: Any) -> None:
    request = KNOWN[protocol]["request"]
    faults = Faults()
    for place in places(request):
        with faults.at(place), suppress(BadRequest):
            use(PROTOCOLS[protocol].codec.read(json.dumps(with_value(request, place, value)).encode()))
    assert faults.found == {}


@EVERY_API
def test_the_request_itself_is_fine(protocol: str) -> None:
    request = asked(protocol)
    use(request)
    assert len(request.history.calls) >= 3
    assert len(request.results) >= 3
    assert request.tools
    assert request.hosted


# -- answers -------------------------------------------------------------------------------------


def written(wire: Any, stream: bool) -> bytes:
    """An answer's bytes; a stream is given by its events."""
    if not stream:
        return json.dumps(wire).encode()
    events = []
    for event in wire:
        kind = event.get("type") if isinstance(event, dict) else None
        head = f"event: {kind}\n" if isinstance(kind, str) and kind.isascii() and kind else ""
        events.append(f"{head}data: {json.dumps(event)}\n\n")
    return "".join([*events, "data: [DONE]\n\n"]).encode()


def read(protocol: str, stream: bool, raw: bytes) -> tuple[list[Passage], Turn | None]:
    """What went on at once, and the turn, or None where the answer has none."""
    decoder = PROTOCOLS[protocol].codec.decoder(stream, Caps())
    passages: list[Passage] = []
    try:
        for events in (decoder.feed(raw), None):
            events, turn = (events, None) if events is not None else decoder.close()
            if any(isinstance(event, Failure) for event in events):
                return passages, None
            passages += [event for event in events if isinstance(event, Passage)]
    except MalformedTurn:
        return passages, None
    return passages, turn


def told(
    protocol: str, stream: bool, passages: Sequence[Passage], turn: Turn, arguments: Sequence[str | None]
) -> bytes:
    """What the client gets of an answer."""
    encoder = PROTOCOLS[protocol].codec.encoder(stream)
    passed = b"".join(map(encoder.passage, passages))
    ended: bytes = encoder.release(turn, arguments, {0: "No."})
    return passed + ended


def check_answer(protocol: str, stream: bool, raw: bytes) -> None:
    """Read an answer and do all that is done with one: no call goes on that was not judged."""
    codec = PROTOCOLS[protocol].codec
    passages, turn = read(protocol, stream, raw)
    assert SECRET not in b"".join(passage.raw for passage in passages)
    if turn is None:
        return
    told(
        protocol, stream, passages, turn, [c.arguments_json if c.fault is None else None for c in turn.calls]
    )
    if turn.calls:
        none = told(protocol, stream, passages, turn, [None] * len(turn.calls))
        assert SECRET not in none, "a call that was refused"
        assert read(protocol, stream, codec.replay(codec.hold(turn), stream))[1] is not None
    encoder = codec.encoder(stream)
    passed = b"".join(map(encoder.passage, passages))
    hidden = passed + encoder.settle(turn) + encoder.status("So.") + encoder.finish("Enough.")
    assert SECRET not in hidden or not turn.calls
    request = asked(protocol)
    results = [ToolResult(call.id, "No.") for call in turn.calls]
    again = codec.extend(request, turn, results, relax=True)
    assert codec.read(again.raw).body == again.body
    if turn.calls:
        assert restored(request, turn).raw


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@EVERY_VALUE
@EVERY_API
def test_an_answer_has_its_reading_or_releases_nothing(protocol: str, value: Any, stream: bool) -> None:
    faults = Faults()
    for answer in KNOWN[protocol]["streams" if stream else "bodies"]:
        for place in places(answer):
            if place or not stream:
                with faults.at(place):
                    check_answer(protocol, stream, written(with_value(answer, place, value), stream))
    assert faults.found == {}


# -- all of it -----------------------------------------------------------------------------------

RESULTS_OF_NO_TYPE: Json = {
    "chat": {
        "messages": [{"role": "user", "content": "Do it."}, {"role": "tool", "content": [{"type": []}]}]
    },
    "messages": {
        "messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": []}]}]}]
    },
    "responses": {
        "input": [
            {"type": "function_call", "call_id": "c", "name": "open", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": []}]},
        ]
    },
}


@EVERY_API
async def test_a_request_that_only_the_provider_can_refuse_is_sent_as_it_is(protocol: str) -> None:
    body = PROTOCOLS[protocol].request({"tools": ["open"]}, False) | RESULTS_OF_NO_TYPE[protocol]
    outcome = await run({"upstream": [{"text": "Fine."}]}, False, body=body, protocol=protocol)
    assert outcome.client.status == 200
    assert json.loads(outcome.upstream.asks[0].body) == body


async def test_an_answer_whose_text_is_no_text_ends_as_a_malformed_one() -> None:
    answer = {**KNOWN["messages"]["bodies"][0], "content": [{"type": "text", "text": 7}]}
    fault = {"kind": "raw", "raw": json.dumps(answer), "content_type": "application/json"}
    outcome = await run({"upstream": [{"fault": fault}]}, False, protocol="messages")
    assert outcome.client.status == 502
    error = json.loads(outcome.client.data)["error"]
    assert (error["type"], error["code"]) == ("api_error", "upstream_malformed")
