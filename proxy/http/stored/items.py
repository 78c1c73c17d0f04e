"""Items of responses and conversations, as lists show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from proxy.http.stored.reading import Reading, going
from proxy.wire.codec import MalformedTurn, Remembered
from proxy.wire.responses import stored as wire
from proxy.wire.responses.stored import Listed

Json = dict[str, Any]


async def shown(reading: Reading, known: Remembered, members: Sequence[Json]) -> list[Json | None]:
    """What the client may see of these items; None in the place of one that it may not.

    A call has to be one that it was given, or brought; of one that nothing is known of the pipeline is
    asked. The result of a call is shown where the call may be.
    """
    listed = [_read(member, members, known) for member in members]
    calls = [call for one in listed if one is not None for call in one.calls]
    situation = reading.situation(known, {"model": known.model, "input": []})
    rulings = await reading.judge(calls, known, situation)
    arguments = iter(going(calls, known, rulings))
    written: list[Json | None] = []
    visible = wire.answerable(known, members)
    for one in listed:
        if one is None:
            written.append(None)
            continue
        item = one.written([next(arguments) for _ in one.calls])
        if one.calls and item is not None:
            visible.add(one.name)
        written.append(item)
    return [
        None if one is None or (one.answers and one.answers not in visible - known.hidden) else item
        for one, item in zip(listed, written, strict=True)
    ]


def _read(member: Json, beside: Sequence[Json], known: Remembered) -> Listed | None:
    """The item; None for what is not shown, whatever is in it."""
    if wire.is_own(member, known):
        return None
    try:
        return wire.listed(member, beside, known)
    except MalformedTurn:
        return None  # of an unknown kind, and perhaps a call
