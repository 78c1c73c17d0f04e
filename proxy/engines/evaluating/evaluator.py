"""Rego evaluated in a process of its own, which can be ended: for policies that are not trusted to end.

An evaluation holds the interpreter's lock until it is done, so that no thread and no timeout can end it,
and nothing else runs meanwhile. Here the time of one evaluation and the memory of all are bounded: a
process that exceeds either is killed and started again.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import signal
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from proxy.engines.children import command, environment
from proxy.engines.evaluating.evaluation import (
    ANSWER,
    DECISION,
    FAULTS,
    MAX_ANSWER_BYTES,
    READY,
    REQUEST,
    UNDEFINED,
)
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.model import loads
from proxy.ports import Unavailable

log = logging.getLogger("callgate.policies")

T = TypeVar("T")

MAX_MEMORY_BYTES = 1 << 30
_START_TIMEOUT_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# The allocator of the engine would set aside a gigabyte of addresses at once, more than the bound allows.
_ALLOCATOR = {"MIMALLOC_ARENA_RESERVE": "32768"}


class Overrun(Unavailable):
    """The evaluation did not end within its bounds; its process was killed, or died of it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a process said of the policies that it serves."""

    packages: frozenset[str]
    reads: Mapping[str, frozenset[str] | None]
    """By package, the members of ``input`` that its decision may depend on; None where not known."""


@dataclass(slots=True)
class _Job:
    package: str
    input_json: bytes
    timeout_s: float
    answer: asyncio.Future[Any]


class Evaluator:
    """One process with the policies of one set, which answers one question after the other.

    The process ends with whoever started it, however that one ends.
    """

    def __init__(
        self,
        *,
        max_memory_bytes: int = MAX_MEMORY_BYTES,
        start_timeout_s: float = _START_TIMEOUT_S,
        niceness: int = 0,
        rests: bool = True,
    ) -> None:
        """``max_memory_bytes`` is of addresses, about 70 MiB of them for an engine without policies;
        ``niceness`` is how far the process stands back behind others. What was killed is started again
        when it is asked next, and ``rests`` where that happens again and again; without ``rests``, at once.
        """
        self.restarts = 0
        """How often the process had to be started again."""
        self._arguments = (str(max_memory_bytes), str(niceness))
        self._start_timeout_s = start_timeout_s
        self._order = b""
        self._process: Process | None = None
        self._jobs: asyncio.Queue[_Job] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None
        self._rests = rests
        self._not_before = 0.0
        self._pause_s = 0.0

    @property
    def pid(self) -> int | None:
        """The process that evaluates now; None while there is none."""
        return self._process.pid if self._process is not None else None

    async def start(self, policy_set: PolicySet) -> Ready:
        """Compile and prove policies; raises ``PolicyFault`` where they cannot serve within the bounds.

        Call it once: other policies are another evaluator's.
        """
        self._order = pickle.dumps(policy_set)
        try:
            ready = await self._begin()
        except Unavailable as exc:
            raise PolicyFault([f"the policies cannot be proven: {exc}"]) from None
        self._serving = asyncio.get_running_loop().create_task(self._serve())
        return ready

    async def decide(self, package: str, input_json: bytes, timeout_s: float) -> Any:
        """The value of ``data.<package>.decision``, or None where it is undefined.

        Raises ``Overrun`` when the evaluation takes longer than ``timeout_s`` or more memory than there
        is, and ``Unavailable`` when a rule fails or when its turn does not come within ``timeout_s``.
        """
        if self._serving is None:
            raise Unavailable("the policy evaluator is not running")
        answer = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait(_Job(package, input_json, timeout_s, answer))
        try:
            async with asyncio.timeout(timeout_s * 1.5 + 0.1):
                return await answer
        except TimeoutError:
            raise Unavailable(f"the policy evaluator was busy for {timeout_s:g} s") from None

    async def close(self) -> None:
        """Kill the process; who still waits is told ``Unavailable``."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        while not self._jobs.empty():
            _fail(self._jobs.get_nowait(), Unavailable("the policy evaluator was stopped"))
        await self._end()

    # -- one process -----------------------------------------------------------------------------

    async def _begin(self) -> Ready:
        """Start a process; raises ``PolicyFault`` for what it finds, ``Unavailable`` where it fails."""
        process = self._process = await self._spawned()
        try:
            kind, body = await self._asked(process, self._order, self._start_timeout_s)
        except BaseException:
            await self._end()
            raise
        if kind == FAULTS:
            await self._end()
            raise PolicyFault(loads(body.decode()))
        assert kind == READY
        said = loads(body.decode())
        reads = {name: frozenset(read) if read is not None else None for name, read in said["reads"].items()}
        return Ready(frozenset(said["packages"]), reads)

    async def _spawned(self) -> Process:
        creating = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command("proxy.engines.evaluating.evaluation", *self._arguments),
                stdin=PIPE,
                stdout=PIPE,
                limit=MAX_ANSWER_BYTES,
                env=environment(**_ALLOCATOR),
            )
        )
        try:
            return await _to_the_end(creating)
        except OSError as exc:
            raise Unavailable(f"no process can be started ({exc.strerror or exc})") from None
        except asyncio.CancelledError:
            # Half made, a process would be nobody's to end.
            with suppress(OSError, asyncio.InvalidStateError):
                self._process = creating.result()
                await self._end()
            raise

    async def _asked(self, process: Process, frame: bytes, timeout_s: float) -> tuple[bytes, bytes]:
        """Send a frame and read the answer; raises ``Overrun``."""
        assert process.stdin is not None
        assert process.stdout is not None
        deadline_ms = int(timeout_s * 1000)
        try:
            async with asyncio.timeout(timeout_s):
                process.stdin.write(REQUEST.pack(len(frame), deadline_ms) + frame)
                await process.stdin.drain()
                length, kind = ANSWER.unpack(await process.stdout.readexactly(ANSWER.size))
                return kind, await process.stdout.readexactly(length) if length else b""
        except TimeoutError:
            raise Overrun(f"they did not answer within {timeout_s:g} s") from None
        except (ConnectionError, asyncio.IncompleteReadError):
            status = await process.wait()
            how = signal.Signals(-status).name if status < 0 else f"status {status}"
            raise Overrun(f"their process ended ({how}), as it does where memory is not enough") from None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        # Reads what is left and closes the pipes. Whoever is cancelled meanwhile, this is done.
        await _to_the_end(process.communicate())

    # -- one question after the other ------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            job = await self._jobs.get()
            if job.answer.done():  # nobody waits for it any more
                continue
            try:
                await self._answer(job)
            except Unavailable as exc:
                _fail(job, exc)
                if self._process is None and not self._rests:
                    with suppress(Unavailable):
                        await self._running()
            except BaseException:
                _fail(job, Unavailable("the policy evaluator was stopped"))
                raise

    async def _answer(self, job: _Job) -> None:
        question = job.package.encode() + b"\n" + job.input_json
        try:
            process = await self._running()
            kind, body = await self._asked(process, question, job.timeout_s)
        except Overrun as exc:
            if not self._rests:  # who asked has a deadline; the end of a process may take its time
                _fail(job, exc)
            await self._end()
            # The first time at once: one bad question must not cost the next one its answer.
            self._not_before = time.monotonic() + (self._pause_s if self._rests else 0.0)
            self._pause_s = min(max(self._pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            raise
        self._pause_s = 0.0
        decision = _read(kind, body)
        if not job.answer.done():
            job.answer.set_result(decision)

    async def _running(self) -> Process:
        if self._process is None:
            if time.monotonic() < self._not_before:
                raise Unavailable(
                    "the policy evaluator was killed again and again, and rests before it starts"
                )
            self.restarts += 1
            try:
                await self._begin()
            except PolicyFault as exc:
                raise Unavailable(f"the policy evaluator cannot be started again: {exc}") from None
        assert self._process is not None
        return self._process


async def _to_the_end(work: Awaitable[T]) -> T:
    """Do something whole, even for who is cancelled meanwhile."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def _read(kind: bytes, body: bytes) -> Any:
    if kind == UNDEFINED:
        return None
    if kind != DECISION:
        raise Unavailable(body.decode(errors="replace"))
    try:
        return orjson.loads(body)
    except ValueError:
        raise Unavailable("the decision is not JSON that can be read") from None


def _fail(job: _Job, exc: Unavailable) -> None:
    if not job.answer.done():
        job.answer.set_exception(exc)
