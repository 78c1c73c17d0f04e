"""Node agents against a real Callgate: each runs what was judged and no more, and ends in a text."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import orjson
import pytest

from tests.clients.cases import CASES
from tests.http.conftest import Serve

PROGRAMS = Path(__file__).with_name("node")
PLAY_S = 30


async def run(command: list[str], env: dict[str, str]) -> str:
    """What a program prints; it must end well, by itself, and in time."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"]} | env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), PLAY_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@pytest.mark.timeout(300)  # the first to come waits for the installation
@pytest.mark.parametrize("way", ["stream", "body"])
@pytest.mark.parametrize("wire", ["chat", "responses"])
@pytest.mark.parametrize("client", ["openai", "ai"])
async def test_it_runs_what_was_judged_and_ends_in_a_text(
    serve: Serve, node: str, client: str, wire: str, way: str
) -> None:
    callgate = await serve(*[case.script for case in CASES])
    names = orjson.dumps([case.name for case in CASES]).decode()
    command = [node, str(PROGRAMS / f"{client}.mjs"), wire, way]
    printed = await run(command, {"CALLGATE_URL": callgate.url, "CALLGATE_CASES": names})
    outcomes = [orjson.loads(line) for line in printed.splitlines()]
    expected = [{"case": case.name, "executed": case.executed, "text": case.text} for case in CASES]
    assert outcomes == expected
    records = await callgate.records("decision")
    assert sum(record["effect"] == "forward" for record in records) == sum(len(c.executed) for c in CASES)
