"""A process that evaluates policies and does nothing else: the other end of ``evaluator.py``.

It reads frames from standard input and answers each on standard output. A frame is its length and a
deadline in milliseconds, both 32 bits in network order, and as many bytes. The first holds the
policy set, every later one ``package NEWLINE input``. An answer is its length, one byte that says what it
is, and the rest.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path

from proxy.engines.evaluating.compiling import Compiled, bounds_of, compiled, evaluate, translation_of
from proxy.engines.sources.policyset import PolicyFault, PolicySet
from proxy.model import dumps
from proxy.ports import Unavailable

REQUEST = struct.Struct(">II")
ANSWER = struct.Struct(">Ic")
READY, FAULTS, DECISION, UNDEFINED, FAILED = b"R", b"F", b"=", b"-", b"!"
MAX_ANSWER_BYTES = 1 << 20

BOUNDS = "?"
"""In place of a package: up to where each decision is known to end soon."""
TRANSLATION = "="
"""In place of a package: the policies in Python (``engines/translated``)."""

# Whoever started this process ends it at the deadline. Should that one be gone, the process ends itself.
_ALONE_S = 1.0


class _Ended(Exception):
    """Nobody asks any more."""


def main() -> None:
    """Evaluate until standard input ends; the arguments are a bound on memory in bytes, and niceness."""
    max_memory_bytes, niceness = map(int, sys.argv[1:3])
    _bound(resource.RLIMIT_AS, max_memory_bytes)
    _bound(resource.RLIMIT_CORE, 0)  # a core dump would hold what people asked
    _step_back(niceness)
    # Its end is decided by the one that started it, which is told of these too, and may have requests to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    try:
        _serve()
    except (_Ended, BrokenPipeError):
        return


def _bound(kind: int, most: int) -> None:
    """Set a limit for good, or leave one that is lower."""
    hard = resource.getrlimit(kind)[1]
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (least, least))


def _step_back(niceness: int) -> None:
    """Let others go first, and live longer: where memory ends, this process can be started again."""
    with suppress(OSError):  # a courtesy, which a sandbox may not allow
        os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _serve() -> None:
    # From the process that started this one, over a pipe that nobody else has; never the other way.
    policy_set = pickle.loads(_next())  # noqa: S301
    ready = _compiled(policy_set)
    if ready is None:
        return
    # What the engine says when it breaks may quote what it was asked.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        package, _, input_json = _next().partition(b"\n")
        if package.decode() == BOUNDS:
            told = {name: bound.written() for name, bound in bounds_of(policy_set).items()}
            _answer(DECISION, dumps(told))
            continue
        if package.decode() == TRANSLATION:
            _answer(DECISION, dumps(translation_of(policy_set).written()))
            continue
        _answer(*_decided(ready, package.decode(), input_json.decode()))


def _compiled(policy_set: PolicySet) -> Compiled | None:
    try:
        ready = compiled(policy_set)
    except PolicyFault as exc:
        _answer(FAULTS, dumps(list(exc.faults)))
        return None
    read = {package: sorted(names) if names is not None else None for package, names in ready.reads.items()}
    _answer(READY, dumps({"packages": sorted(ready.packages), "reads": read}))
    return ready


def _decided(ready: Compiled, package: str, input_json: str) -> tuple[bytes, bytes]:
    if package not in ready.packages:
        return UNDEFINED, b""
    try:
        decision = evaluate(ready.engine, package, input_json)
    except Unavailable as exc:
        return FAILED, str(exc).encode(errors="replace")
    if decision is None:
        return UNDEFINED, b""
    answer = decision.encode()
    if len(answer) > MAX_ANSWER_BYTES:
        return FAILED, f"the decision of {package} is longer than {MAX_ANSWER_BYTES} bytes".encode()
    return DECISION, answer


def _next() -> bytes:
    """The next frame; from here on its deadline counts."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    length, deadline_ms = REQUEST.unpack(_read(REQUEST.size))
    frame = _read(length)
    signal.setitimer(signal.ITIMER_REAL, deadline_ms / 1000 + _ALONE_S)
    return frame


def _read(length: int) -> bytes:
    data = sys.stdin.buffer.read(length)
    if len(data) < length:
        raise _Ended
    return data


def _answer(kind: bytes, body: bytes) -> None:
    sys.stdout.buffer.write(ANSWER.pack(len(body), kind) + body)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
