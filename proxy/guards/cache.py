"""The cache: a read-only call is answered with the result that the application itself returned before.

No result is kept that a forwarded call did not bring back, none is answered past policy (the cache is the
last guard), and none outlives a write to what it was read from. Each tag has a random token in the store.
A result is kept with the tokens that stood when its call was forwarded, and is valid while all of them
stand; to write is to delete the tokens. A token that is lost, for whatever reason, is a miss.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import orjson

from proxy.guards._cache_keys import Place, Places, changed_tags, pending_key
from proxy.guards._outcomes import is_error
from proxy.guards.base import Context, Situation
from proxy.model import PastCall, PastResult, ToolCall
from proxy.ports import Store, Unavailable
from proxy.tools import CacheRule, ToolSpec
from proxy.verdicts import Allow, Answer, Verdict

Shown = Callable[[PastResult, Situation], Awaitable[str]]

_ALLOW = Allow()
_TOKEN_TTL_S = 86_400.0
_WRITE_TTL_S = 86_400.0


class CacheGuard:
    """Answers reads from ``store``, and learns their results as applications send them back.

    Only tools that are registered with ``effect: read`` and a ``cache`` rule take part. An answer is
    never older than the rule's ``ttl_s``, or policy's ``cache_ttl_s`` where that is shorter, counted from
    when its call was forwarded. Raises ``Unavailable`` when the store fails.
    """

    name: ClassVar[str] = "cache"

    def __init__(
        self,
        store: Store,
        max_rounds: int = 3,
        max_result_bytes: int = 256 * 1024,
        shown: Shown | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``max_rounds``: how many rounds an exchange may hide; then reads go to the application again,
        for an answer from the cache would use up the model's last round. ``shown``: what the model may
        see of a result here and now; None is all of it. ``clock``: seconds, shared by all who share the
        store."""
        self._store, self._shown, self._clock = store, shown, clock
        self._max_rounds, self._max_result_bytes = max_rounds, max_result_bytes
        self._places = Places()
        self._trusted_from = float("-inf")
        """What was kept before this time may have been changed by a write that the store did not hear of."""

    async def check(self, call: ToolCall, ctx: Context) -> Verdict:
        """Answer, where a valid result is kept; else Allow, and remember what is on its way."""
        spec = ctx.spec
        if spec is None or call.arguments is None:
            return _ALLOW
        if spec.invalidates:
            await self._note_write(call, spec, ctx.situation)
        if spec.effect != "read" or spec.cache is None or self._must_forward(ctx.situation):
            return _ALLOW
        ttl_s = spec.cache.ttl_s if ctx.cache_ttl_s is None else min(spec.cache.ttl_s, ctx.cache_ttl_s)
        place = self._place(spec, spec.cache, call.name, call.arguments, ctx.situation)
        if place is None or ttl_s <= 0:
            return _ALLOW
        kept = ""

        async def look_up() -> dict[str, Any]:
            nonlocal kept
            found = await self._find(place, ttl_s)
            if isinstance(found, tuple):
                kept, age_s = found
                if self._shown is not None:
                    kept = await self._shown(PastResult(call.id, call.id, call.name, kept), ctx.situation)
                return {"hit": True, "age_s": round(age_s, 3)}
            await self._note_read(place, found, ttl_s, call, ctx.situation)
            return {"hit": False}

        seen = await ctx.fact("cache", look_up)
        if not seen["hit"]:
            return _ALLOW
        return Answer(result=kept, reasons=(f"answered from the cache, {seen['age_s']:.0f} s old",))

    def _must_forward(self, situation: Situation) -> bool:
        # One of several choices cannot be asked again, so an answer for it would be lost.
        return situation.request.choices > 1 or situation.settled_rounds >= self._max_rounds

    def _place(
        self, spec: ToolSpec, rule: CacheRule, name: str, arguments: Any, situation: Situation
    ) -> Place | None:
        offered = situation.request.tools.get(name)
        return self._places.find(spec, rule, offered, arguments, situation.principal)

    async def _find(self, place: Place, ttl_s: float) -> tuple[str, float] | list[bytes | None]:
        """The result and its age in seconds; on a miss, the tokens that stand now."""
        entry, *tokens = await self._store.get_many([place.key, *place.tags])
        if entry is None:
            return tokens
        head, _, result = entry.partition(b"\n")
        written, kept_tokens = orjson.loads(head)
        age_s = max(self._clock() - written, 0.0)
        if age_s >= ttl_s or written <= self._trusted_from or kept_tokens != _words(tokens):
            return tokens
        return result.decode(), age_s

    async def _note_read(
        self,
        place: Place,
        tokens: Sequence[bytes | None],
        ttl_s: float,
        call: ToolCall,
        situation: Situation,
    ) -> None:
        """Remember that the application has been sent for the result, and what stood at that time."""
        if not call.id:
            return
        stands: list[bytes] = []
        for key, token in zip(place.tags, tokens, strict=True):
            if token is None:
                # Of two who begin a tag at once, the last one's token stands; the other learns nothing.
                token = secrets.token_hex(8).encode()
                await self._store.put(key, token, _TOKEN_TTL_S)
            stands.append(token)
        on_its_way = {"key": place.key, "tokens": _words(stands), "sent": self._clock(), "ttl_s": ttl_s}
        await self._store.put(pending_key(situation, call.id), orjson.dumps(on_its_way), ttl_s)

    async def _note_write(self, call: ToolCall, spec: ToolSpec, situation: Situation) -> None:
        """What the call may change is not answered from now on; nor what is read before it has ended."""
        tags = changed_tags(spec.invalidates, call.arguments, situation.principal)
        await self._forget(tags)
        if call.id:
            on_its_way = orjson.dumps({"tool": call.name, "changes": tags})
            await self._store.put(pending_key(situation, call.id), on_its_way, _WRITE_TTL_S)

    async def _forget(self, tags: Sequence[str]) -> None:
        try:
            for key in tags:
                await self._store.take(key)
        except Unavailable:
            # The write goes on where a failing cache is a miss: then nothing older is answered here again.
            self._trusted_from = self._clock()
            raise

    # -- learning -------------------------------------------------------------------------------

    async def learn(self, results: Sequence[PastCall], situation: Situation) -> None:
        """Keep the results of reads that this principal's calls were forwarded for; end what was written."""
        # Providers use short ids again: what was forwarded last is what came last.
        last = {past.id: past for past in results}.values()
        came = [(past, spec) for past in last if (spec := self._takes_part(past, situation))]
        if not came:
            return
        values = await self._store.get_many([pending_key(situation, past.id) for past, _ in came])
        reads = []
        for (past, spec), value in zip(came, values, strict=True):
            if value is None:
                continue
            on_its_way = orjson.loads(value)
            if "changes" not in on_its_way:
                reads.append((past, spec, on_its_way))
            elif on_its_way["tool"] == past.name:
                await self._forget(on_its_way["changes"])
                await self._store.take(pending_key(situation, past.id))
        for past, spec, on_its_way in reads:
            await self._keep(past, spec, on_its_way, situation)

    def _takes_part(self, past: PastCall, situation: Situation) -> ToolSpec | None:
        spec = situation.registry(past.name)
        if spec is None or not past.id or past.result is None:
            return None
        return spec if spec.cache is not None or spec.invalidates else None

    async def _keep(
        self, past: PastCall, spec: ToolSpec, on_its_way: dict[str, Any], situation: Situation
    ) -> None:
        place = spec.cache and self._place(spec, spec.cache, past.name, past.arguments(), situation)
        # The id alone does not say which call this is: providers use short ones twice.
        if not place or place.key != on_its_way["key"]:
            return
        if await self._store.take(pending_key(situation, past.id)) is None:
            return
        left_s = on_its_way["ttl_s"] - (self._clock() - on_its_way["sent"])
        result = self._storable(past)
        if result is None or left_s <= 0:
            return
        # Where something was written since, these tokens stand no more, and the result is never found.
        head = orjson.dumps([on_its_way["sent"], on_its_way["tokens"]])
        await self._store.put(place.key, head + b"\n" + result, left_s)

    def _storable(self, past: PastCall) -> bytes | None:
        """The result's bytes; None for what reports a failure, is too large, or is not text alone."""
        result = past.result
        if past.failed or past.partial or not result or is_error(result):
            return None
        try:
            text = result.encode()
        except UnicodeError:
            return None
        return text if len(text) <= self._max_result_bytes else None


def _words(tokens: Sequence[bytes | None]) -> list[str]:
    return [token.decode() if token is not None else "" for token in tokens]
