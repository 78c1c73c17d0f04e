"""What the proxy did inside earlier answers, put back into the requests that follow them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence

from proxy.guards.base import Refused
from proxy.model import Passage, Principal, Request, ToolResult, Turn
from proxy.model.value import value
from proxy.ports import Store, Unavailable
from proxy.wire.codec import Codec, Ending, Rounds, Settlement

log = logging.getLogger("callgate.settlements")

_NOT_YOURS = "Nothing of this id was given to you by Callgate, or it is no longer known."
STORED = "stored"
"""The scope of what is read back by its own name."""


@value(frozen=True)
class Settlements:
    """One principal's settled calls. If the store has lost them, a request goes on as the client sent it."""

    store: Store
    codec: Codec
    principal: Principal
    ttl_s: float

    async def restore(self, request: Request) -> tuple[Request, int]:
        """The request with its settled calls, and how many settlements were put back.

        Raises ``Refused`` where it goes on from what another principal was given, or may have been.
        """
        handles, continued = request.handles, request.continued
        if not handles:
            return request, 0
        keys = self._keys(request.scope, handles)
        try:
            # A request may name an answer and a conversation, and which counts is the provider's to say.
            owned = map(_owner_key, handles) if continued else ()
            values = await self.store.get_many([*keys, *owned])
        except Unavailable as exc:
            log.warning("settled calls could not be restored: %s", exc)
            if continued:
                message = "It cannot be told now whose this conversation is, so it is not gone on with."
                raise Refused(503, "store_unavailable", message) from exc
            return request, 0
        values, owners = values[: len(keys)], values[len(keys) :]
        # Some servers use the names of answers again: what is kept of one's own counts.
        if any(o not in (None, self._owner) and v is None for o, v in zip(owners, values, strict=False)):
            raise Refused(404, "not_found", _NOT_YOURS)
        kept = {handle: value for handle, value in zip(handles, values, strict=True) if value is not None}
        return (self.codec.restore(request, kept), len(kept)) if kept else (request, 0)

    async def keep(
        self,
        asked: Request,
        hidden: Rounds,
        turn: Turn,
        settled: Sequence[ToolResult],
        ending: Ending,
    ) -> None:
        """Keep what the client does not see of an answer under the names that it will come back with."""
        await self.put(self.codec.settlement(asked, hidden, turn, settled, ending), asked.scope)

    async def begin(self, asked: Request, hidden: Rounds, passage: Passage, ending: Ending) -> bool:
        """Keep that an answer has begun, where this passage is its beginning; whether it was."""
        settlement = self.codec.begun(asked, hidden, passage, ending)
        await self.put(settlement, asked.scope)
        return settlement is not None

    async def put(self, settlement: Settlement | None, scope: str) -> None:
        """Keep a settlement; what the store cannot take is not known later."""
        if settlement is None:
            return
        values = dict.fromkeys(self._keys(scope, settlement.handles), settlement.kept)
        values |= {_owner_key(name): self._owner for name in settlement.owned}
        if settlement.stored is not None:
            name, kept = settlement.stored
            values[self._key(STORED, name)] = kept
        try:
            await self.store.put_many(values, self.ttl_s)
        except Unavailable as exc:
            log.warning("settled calls could not be kept; the model will not see them again: %s", exc)

    async def find(self, names: Sequence[str], scope: str) -> list[bytes | None]:
        """What is kept under names; a store that fails knows none."""
        try:
            return await self.store.get_many(self._keys(scope, names))
        except Unavailable as exc:
            log.warning("what was given earlier could not be looked up: %s", exc)
            return [None] * len(names)

    @property
    def _owner(self) -> bytes:
        return hashlib.sha256(self.principal.key.encode(errors="replace")).digest()

    async def forget(self, name: str, scope: str) -> None:
        """Keep a name no longer."""
        try:
            await self.store.take(self._key(scope, name))
        except Unavailable as exc:
            log.warning("what was deleted is still known here: %s", exc)

    def _key(self, scope: str, handle: str) -> str:
        """A key under the principal's own name: another's call id opens nothing."""
        return self._keys(scope, (handle,))[0]

    def _keys(self, scope: str, handles: Iterable[str]) -> list[str]:
        # Long conversations have many handles, and a scope may be long: it is hashed once.
        begun = hashlib.sha256(f"{self.principal.key}\0{scope}\0".encode(errors="replace"))
        keys: list[str] = []
        for handle in handles:
            digest = begun.copy()
            digest.update(handle.encode(errors="replace"))
            keys.append("settled:" + digest.hexdigest())
        return keys


def _owner_key(name: str) -> str:
    return "owner:" + hashlib.sha256(name.encode(errors="replace")).hexdigest()
