"""The rest of a stream, for a client that has heard its beginning."""

from __future__ import annotations

from proxy.http.stored.reading import Reading
from proxy.model import Fault, loads_frame
from proxy.ports import Headers
from proxy.wire.codec import Encoder, sse


class Resumed:
    """Sends the events that follow a client's cursor; every event is numbered as the client knows it."""

    def __init__(self, reading: Reading, after: int) -> None:
        """``after`` is the number of the last event that the client has; -1 for none."""
        self.begun = False
        self._reading, self._after = reading, after
        self._frames = sse(reading.core.caps)
        self._number = -1

    async def begin(self, headers: Headers, encoder: Encoder) -> None:
        """Send the head, once."""
        if self.begun:
            return
        self.begun = True
        reading = self._reading
        reading.told_error = encoder.error
        await reading.asked.downstream.begin(200, headers, reading.codec.keepalive)

    async def send(self, data: bytes) -> None:
        """Send what of these events the client has not had."""
        self._reading.asked.downstream.holding = False
        rest = b"".join(frame.raw for frame in self._frames.feed(data) if self._is_new(frame.data))
        if rest:
            await self._reading.asked.downstream.send(rest)

    def _is_new(self, data: bytes | None) -> bool:
        """Whether an event follows the cursor; one without a number of its own follows the one before."""
        if data is None:
            return self._number >= self._after
        try:
            wire = loads_frame(data)
        except Fault:
            return self._number >= self._after  # the mark at the end of some streams
        number = wire.get("sequence_number") if isinstance(wire, dict) else None
        self._number = number if isinstance(number, int) else self._number + 1
        return self._number > self._after
