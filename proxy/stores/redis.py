"""The store of many workers and replicas: Redis or Valkey, every operation bounded in time."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil, isfinite
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import TimeoutError as TimedOut

from proxy.ports import Unavailable
from proxy.stores.breaker import Breaker, Paused
from proxy.stores.redis_client import Connected, connect
from proxy.stores.redis_url import parse_url

log = logging.getLogger("callgate.store")

T = TypeVar("T")

# GETDEL came with Redis 6.2; this does the same on every version.
_TAKE = "local v = redis.call('GET', KEYS[1]) if v then redis.call('DEL', KEYS[1]) end return v"
# The expiry is set where there is none: when the counter begins, and never again.
_COUNT = (
    "local total = redis.call('INCRBYFLOAT', KEYS[1], ARGV[1]) "
    "if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end "
    "return total"
)

_NO_ANSWER = (NotConnected, TimedOut, OSError, RedisClusterException)  # OSError: TimeoutError is one
_MAX_CONCURRENT = 64
_MAX_KEYS_LISTED = 10_000
_KEYS_A_STEP = 1000
_LISTING_TIMEOUTS = 10
_MAX_CAUSE_CHARS = 200


class RedisStore:
    """A ``Store`` in Redis, under keys that begin with ``prefix``; for one event loop.

    Every operation ends within ``timeout_s``, in ``Unavailable`` where Redis gave no answer; none is sent
    twice, since what got no answer may still have been done. After ``max_failures`` in a row operations
    fail at once for ``pause_s`` seconds; then one tries again, over new connections.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "callgate:",
        timeout_s: float = 1.0,
        max_failures: int = 5,
        pause_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = parse_url(url)
        self._prefix = prefix
        self._timeout_s, self._pause_s = timeout_s, pause_s
        self._breaker = Breaker(_NO_ANSWER, max_failures, pause_s, clock)
        self._slots = asyncio.Semaphore(_MAX_CONCURRENT)
        self._connected = self._connect()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answered = False
        self._fault: str | None = None

    @property
    def ready(self) -> bool:
        """Whether Redis has answered once: what it is configured with works."""
        return self._answered

    @property
    def fault(self) -> str | None:
        """Why the last operation got no answer, in words without secrets; None where it got one."""
        return self._fault if self._answered or self._fault else f"{self._name} has not been asked yet"

    async def start(self) -> None:
        """Begin to ask until Redis answers for the first time; does not wait for it."""
        self._spawn(self._until_it_answers())

    async def close(self) -> None:
        """Close the connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connected.close()

    async def ping(self) -> None:
        """Ask whether it answers; raises ``Unavailable``, with the cause, where it does not."""
        await self._ask(lambda redis: redis.client.ping())

    async def get(self, key: str) -> bytes | None:
        """The value under ``key``, or None."""
        value: bytes | None = await self._ask(lambda redis: redis.client.get(self._key(key)))
        return value

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values under ``keys``, in their order; in a cluster, one question for every slot, at once."""
        if not keys:
            return []
        return await self._ask(lambda redis: redis.get_many([self._key(key) for key in keys]))

    async def put(self, key: str, value: bytes, ttl_s: float, only_if_absent: bool = False) -> bool:
        """Keep ``value`` for ``ttl_s`` seconds; False where ``only_if_absent`` found another."""
        ttl_ms = _milliseconds(ttl_s)
        done = await self._ask(
            lambda redis: redis.client.set(self._key(key), value, px=ttl_ms, nx=only_if_absent)
        )
        return bool(done)

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for ``ttl_s`` seconds; in a cluster, one question for every node, at once."""
        if values:
            keyed = {self._key(key): value for key, value in values.items()}
            await self._ask(lambda redis: redis.put_many(keyed, _milliseconds(ttl_s)))

    async def take(self, key: str) -> bytes | None:
        """Get and delete, atomically: of all who take, one receives."""
        value: bytes | None = await self._ask(lambda redis: redis.client.eval(_TAKE, 1, self._key(key)))
        return value

    async def keys(self, prefix: str) -> list[str]:
        """Every key that begins with ``prefix``, found by SCAN; the first 10 000 where there are more."""
        found = await self._ask(
            lambda redis: self._scan(redis, self._key(prefix)), _LISTING_TIMEOUTS * self._timeout_s
        )
        return sorted(found)

    async def count(self, key: str, amount: float, ttl_s: float) -> float:
        """Add to a counter that expires ``ttl_s`` seconds after it began; returns its new value."""
        if not isfinite(amount):
            raise ValueError(f"a counter cannot count {amount}: no limit could hold after it")
        ttl_ms = _milliseconds(ttl_s)
        return float(
            await self._ask(
                lambda redis: redis.client.eval(_COUNT, 1, self._key(key), repr(float(amount)), ttl_ms)
            )
        )

    # -- asking -------------------------------------------------------------------------------

    async def _ask(self, ask: Callable[[Connected], Awaitable[T]], timeout_s: float | None = None) -> T:
        """Ask once; every way to get no answer is ``Unavailable``."""
        connected = self._connected
        try:
            with self._breaker.attempt():
                async with asyncio.timeout(timeout_s or self._timeout_s), self._slots:
                    await connected.begin()
                    answer = await ask(connected)
        except Paused:
            raise Unavailable(f"{self._fault}; it is left alone for a moment") from None
        except _NO_ANSWER as exc:
            raise self._no_answer(exc, connected) from None
        except RedisError as exc:
            raise Unavailable(f"{self._name} refused: {self._cause(exc)}") from None
        if self._fault is not None:
            log.warning("%s answers again", self._name)
        self._fault, self._answered = None, True
        return answer

    def _no_answer(self, exc: Exception, connected: Connected) -> Unavailable:
        fault = f"{self._name} does not answer: {self._cause(exc)}"
        if self._breaker.open and connected is self._connected:
            # What is connected may be dead without knowing it: connections left over from before a
            # network failed would have to time out one after another.
            self._spawn(connected.close())
            self._connected = self._connect()
        if self._fault is None:
            log.error("%s", fault)
        self._fault = fault
        return Unavailable(fault)

    def _cause(self, exc: Exception) -> str:
        if isinstance(exc, RedisClusterException):  # its text repeats what was asked
            return "no node of the cluster serves this key"
        text = str(exc) or f"nothing within {self._timeout_s:g} s"
        for secret in self._address.secrets:
            text = text.replace(secret, "…")
        return text.splitlines()[0][:_MAX_CAUSE_CHARS]

    @property
    def _name(self) -> str:
        return f"Redis at {self._address.where}"

    def _connect(self) -> Connected:
        return connect(self._address, self._timeout_s, _MAX_CONCURRENT)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Awaitable[None]) -> None:
        with suppress(RedisError, RedisClusterException, OSError):
            await work

    async def _until_it_answers(self) -> None:
        while not self._answered:
            with suppress(Unavailable):
                await self.ping()
                break
            await asyncio.sleep(self._pause_s)
        await self._warn_of_eviction()

    async def _warn_of_eviction(self) -> None:
        with suppress(Unavailable):
            info = await self._ask(lambda redis: redis.client.info("memory"))
            policy = info.get("maxmemory_policy", "noeviction")
            if policy != "noeviction":
                log.warning(
                    "%s has maxmemory-policy %s: when it is full, counters and tickets are lost before their"
                    " time, and limits with them (set noeviction)",
                    self._name,
                    policy,
                )

    # -- keys ---------------------------------------------------------------------------------

    def _key(self, key: str) -> bytes:
        return (self._prefix + key).encode(errors="surrogatepass")

    async def _scan(self, redis: Connected, start: bytes) -> set[str]:
        # SCAN may give a key twice, and what stands in a glob for other characters has to be escaped.
        pattern = re.sub(rb"([\\*?\[\]])", rb"\\\1", start) + b"*"
        found: set[str] = set()
        async for key in redis.client.scan_iter(match=pattern, count=_KEYS_A_STEP):
            with suppress(UnicodeDecodeError):  # not one of ours
                found.add(key.decode(errors="surrogatepass")[len(self._prefix) :])
            if len(found) >= _MAX_KEYS_LISTED:
                break
        return found


def _milliseconds(ttl_s: float) -> int:
    """Redis keeps nothing for no time at all: one millisecond is the least."""
    return max(1, ceil(ttl_s * 1000))
