"""What the proxy did inside earlier answers, put back into the requests that follow them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.model import Principal, Request, ToolResult, Turn
from proxy.ports import Store, Unavailable
from proxy.wire.codec import Codec, Rounds

log = logging.getLogger("callgate.settlements")


@dataclass(frozen=True)
class Settlements:
    """One principal's settled calls. If the store has lost them, a request goes on as the client sent it."""

    store: Store
    codec: Codec
    principal: Principal
    ttl_s: float

    async def restore(self, request: Request) -> tuple[Request, int]:
        """The request with its settled calls, and how many settlements were put back."""
        handles = request.handles
        if not handles:
            return request, 0
        try:
            values = await self.store.get_many([self._key(request, handle) for handle in handles])
        except Unavailable as exc:
            log.warning("settled calls could not be restored: %s", exc)
            return request, 0
        kept = {handle: value for handle, value in zip(handles, values, strict=True) if value is not None}
        return (self.codec.restore(request, kept), len(kept)) if kept else (request, 0)

    async def keep(self, asked: Request, hidden: Rounds, turn: Turn, settled: Sequence[ToolResult]) -> None:
        """Keep what the client does not see of an answer under the names that it will come back with."""
        settlement = self.codec.settlement(asked, hidden, turn, settled)
        if settlement is None:
            return
        try:
            for handle in settlement.handles:
                await self.store.put(self._key(asked, handle), settlement.kept, self.ttl_s)
        except Unavailable as exc:
            log.warning("settled calls could not be kept; the model will not see them again: %s", exc)

    def _key(self, request: Request, handle: str) -> str:
        """A key under the principal's own name: another's call id opens nothing."""
        text = "\0".join((self.principal.key, request.scope, handle))
        return "settled:" + hashlib.sha256(text.encode(errors="replace")).hexdigest()
