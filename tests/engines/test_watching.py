"""Policies that change on disk while Callgate serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.engines.following.loading import loaded
from proxy.engines.following.watching import PolicyWatcher
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from tests.following import until

ALLOW = 'package callgate.call\n\ndecision := {"effect": "allow"}\n'
DENY = 'package callgate.call\n\ndecision := {"effect": "deny"}\n'


class Watched(RegorusEngine):
    """An engine that says when other policies were tried."""

    def __init__(self, folder: Path) -> None:
        super().__init__(PolicySet.load([folder]))
        self.tried = asyncio.Event()

    async def replace(self, policy_set: PolicySet) -> None:
        try:
            await super().replace(policy_set)
        finally:
            self.tried.set()


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[tuple[Watched, PolicyWatcher]]:
    engine = Watched(folder)
    watcher = PolicyWatcher(engine, lambda: loaded([folder]), [folder], settle_ms=50)
    stop = asyncio.Event()
    task = asyncio.get_running_loop().create_task(watcher.run(stop))
    try:
        # The first change may come before the watch stands: it is made until it is seen.
        yield engine, watcher
    finally:
        stop.set()
        await task


async def effect(engine: RegorusEngine) -> str:
    decision = await engine.decide("callgate.call", {})
    return str(decision["effect"])


async def test_an_edited_file_is_put_in_force(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(ALLOW)
    async with watching(tmp_path) as (engine, watcher):
        before = engine.revision
        assert await effect(engine) == "allow"
        await until(lambda: (tmp_path / "a.rego").write_text(DENY), lambda: watcher.reloads)
        assert await effect(engine) == "deny"
        assert engine.revision != before
        assert watcher.reloads == 1


async def test_what_cannot_serve_leaves_the_last_good_in_force(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(ALLOW)
    async with watching(tmp_path) as (engine, watcher):
        before = engine.revision
        await until(lambda: (tmp_path / "a.rego").write_text("package x\n\np if {"), lambda: watcher.faults)
        assert await effect(engine) == "allow"
        assert engine.revision == before
        assert "a.rego" in watcher.faults[0]
        await until(lambda: (tmp_path / "a.rego").write_text(DENY), lambda: not watcher.faults)
        assert await effect(engine) == "deny"


async def test_the_link_swap_of_a_mounted_configmap_is_followed(tmp_path: Path) -> None:
    def mount(name: str, text: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "a.rego").write_text(text)
        link = tmp_path / "..data_tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.rename(tmp_path / "..data")

    mount("..2026_01", ALLOW)
    (tmp_path / "a.rego").symlink_to("..data/a.rego")
    async with watching(tmp_path) as (engine, watcher):
        assert await effect(engine) == "allow"
        await until(lambda: mount("..2026_02", DENY), lambda: watcher.reloads)
        assert await effect(engine) == "deny"


async def test_the_same_policies_are_not_put_in_force_again(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(ALLOW)
    engine = Watched(tmp_path)
    watcher = PolicyWatcher(engine, lambda: loaded([tmp_path]), [tmp_path])
    await watcher.reload()
    assert not engine.tried.is_set()
    assert (watcher.reloads, watcher.failures) == (0, 0)


@pytest.mark.parametrize("flips", [10])
async def test_every_decision_is_one_revisions_while_policies_flip(tmp_path: Path, flips: int) -> None:
    engine = Watched(_folder(tmp_path, ALLOW))
    text = ALLOW

    async def load() -> PolicySet:
        return PolicySet.of({"a.rego": text}, {})

    watcher = PolicyWatcher(engine, load, [tmp_path])
    revisions = {PolicySet.of({"a.rego": t}, {}).revision: e for t, e in ((ALLOW, "allow"), (DENY, "deny"))}
    seen: list[bool] = []

    async def ask() -> None:
        for _ in range(10_000 // 20):
            revision = engine.revision
            decided = await effect(engine)
            seen.append(revisions.get(revision, "allow") == decided)
            await asyncio.sleep(0)

    async def flip() -> None:
        nonlocal text
        for number in range(flips):
            text = DENY if number % 2 == 0 else ALLOW
            await watcher.reload()

    await asyncio.gather(flip(), *(ask() for _ in range(20)))
    assert watcher.reloads == flips
    assert len(seen) == 10_000
    assert all(seen)


def _folder(path: Path, text: str) -> Path:
    (path / "a.rego").write_text(text)
    return path
