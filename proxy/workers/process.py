"""One worker: how it is told what to serve, says that it serves, and ends with whoever started it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.app import Worker, build
from proxy.config import Settings
from proxy.http.tasks import spawn
from proxy.model import dumps, loads

STARTED = b"started\n"
MAX_ORDER_BYTES = 16 * 1024 * 1024


def order(settings: Settings, worker: Worker) -> bytes:
    """The line that tells a worker what to serve. It names where secrets are and holds none."""
    here = Path.cwd()
    return (
        dumps(
            {
                "settings": settings.within(here).model_dump(mode="json", by_alias=True),
                "folder": str(here / settings.folder),
                "number": worker.number,
                "admin_socket": str(worker.admin_socket),
            }
        )
        + b"\n"
    )


def read_order(line: bytes) -> tuple[Settings, Worker]:
    """What a worker is to serve."""
    fields: dict[str, Any] = loads(line)
    settings = Settings.model_validate(fields["settings"]).within(Path(fields["folder"]))
    return settings, Worker(fields["number"], Path(fields["admin_socket"]))


async def serve_one() -> None:
    """Serve what standard input says, until it is closed or a signal comes; raises ``ConfigFault``.

    Standard input ends when the process that started this one does, however it ended: no worker is left
    behind.
    """
    reader = asyncio.StreamReader(limit=MAX_ORDER_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    settings, worker = read_order(await reader.readline())
    stop = asyncio.Event()
    spawn(_at_the_end(reader, stop.set))
    await build(settings, worker=worker).run(stop, _say_started)


async def _at_the_end(reader: asyncio.StreamReader, then: Callable[[], None]) -> None:
    await reader.read()
    then()


def _say_started() -> None:
    os.write(1, STARTED)
    os.dup2(2, 1)  # nobody reads what comes after: it belongs with the log
