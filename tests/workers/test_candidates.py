"""A candidate with ``workers: 2``: each worker asks its own, and the counts are of both."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from proxy.scripted import ScriptedProvider
from tests.stores.servers import Server
from tests.workers.test_workers import provider, redis, serving, shared

__all__ = ["provider", "redis"]

DENY = 'package callgate.call\n\ndecision := {"effect": "deny", "reasons": ["not any more"]}\n'
ASKED = 40


def processes_under(parents: set[int]) -> set[int]:
    """The evaluators that these processes have started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent in parents and b"proxy.engines.evaluating.evaluation" in command:
            found.add(int(stat.parent.name))
    return found


async def test_each_worker_asks_a_candidate_of_its_own(
    tmp_path: Path, provider: ScriptedProvider, redis: Server
) -> None:
    (tmp_path / "next.rego").write_text(DENY)
    policies = {"paths": ["policy.rego"], "candidate": {"paths": ["next.rego"], "timeout_s": 20}}
    with serving(tmp_path, **shared(provider, redis), policies=policies) as command:
        await command.ready()
        answers = await command.ask(ASKED)
        assert all(answer["choices"][0]["message"]["tool_calls"] for answer in answers)
        counted = 0.0
        while counted < ASKED:
            counted = await command.counted("callgate_candidate_decisions_total")
            await asyncio.sleep(0.05)
        assert counted == ASKED
        candidates = processes_under(set(command.workers().values()))
        assert len(candidates) >= 2
        assert await command.end() == 0
        served = command.served()
        for number in (1, 2):
            files = (tmp_path / f"audit/worker-{number}").glob("*.jsonl")
            log = b"".join(file.read_bytes() for file in files)
            assert log.count(b'"event":"differs"') == served[number]
            assert log.count(b'"change":"stricter"') == served[number]
        assert sum(served.values()) == ASKED
    assert not [pid for pid in candidates if os.path.exists(f"/proc/{pid}")]
