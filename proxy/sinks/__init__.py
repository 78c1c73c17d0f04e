"""Where records go: the audit log, metrics, and several of them at once."""

from __future__ import annotations

from proxy.ports import Sink, Unavailable
from proxy.record import Record


class Tee:
    """Gives each record to several sinks, in order."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def write(self, record: Record) -> None:
        """Give every sink its record, then raise the first ``Unavailable`` that one of them raised."""
        refused: Unavailable | None = None
        for sink in self._sinks:
            try:
                sink.write(record)
            except Unavailable as exc:
                refused = refused or exc
        if refused is not None:
            raise refused
