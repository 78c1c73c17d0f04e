"""Keys that expire, are unknown, or change in their file while Callgate serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.http.identity import Anonymous, ApiKeys, FileFollower, Identity, Passthrough, Unidentified
from tests.following import until

NOW = 1_900_000_000.0  # 2030-03-17T17:46:40Z


def line(key: str, fields: str) -> str:
    return f"{sha256(key.encode()).hexdigest()}: {{{fields}}}\n"


def asked(ways: list[object], *headers: tuple[str, str]) -> tuple[str, str, frozenset[str]]:
    found = Identity(ways).identify(CIMultiDictProxy(CIMultiDict(headers)), None)  # type: ignore[arg-type]
    return found.principal.kind, found.principal.id, found.consumed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


# -- keys that work no more


@pytest.mark.parametrize(
    ("expires", "works"),
    [
        ("2030-03-17T17:46:40Z", False),
        ("2030-03-17T17:46:41Z", True),
        ("2030-03-17T19:46:41+02:00", True),
        ("2030-03-17", False),
        ("2030-03-18", True),
        ("'2030-03-18'", True),
    ],
)
def test_a_key_works_until_it_expires(path: Path, expires: str, works: bool) -> None:
    path.write_text(line("k", f"id: a, expires: {expires}"))
    ways = [ApiKeys(path, clock=lambda: NOW), Passthrough(), Anonymous()]
    if works:
        assert asked(ways, ("authorization", "Bearer k"))[1] == "a"
        return
    with pytest.raises(Unidentified, match="has expired") as refusal:
        asked(ways, ("authorization", "Bearer k"))
    assert refusal.value.headers["WWW-Authenticate"].endswith('error="invalid_token"')


@pytest.mark.parametrize("name", ["authorization", "x-api-key", "api-key", "x-callgate-key"])
def test_a_key_of_ours_that_is_not_known_is_left_to_nobody(path: Path, name: str) -> None:
    path.write_text(line("cg_known", "id: a"))
    with pytest.raises(Unidentified, match=f"The key in {name} is not known"):
        asked([ApiKeys(path), Passthrough(), Anonymous()], (name, "cg_revoked"))


def test_with_several_files_the_last_one_refuses(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    path.write_text(line("cg_1", "id: one"))
    other.write_text(line("cg_2", "id: two"))
    ways = [ApiKeys(path, last=False), ApiKeys(other), Passthrough()]
    for name in ("authorization", "x-callgate-key"):
        assert [asked(ways, (name, f"cg_{n}"))[1] for n in (1, 2)] == ["one", "two"]
        with pytest.raises(Unidentified, match="not known"):
            asked(ways, (name, "cg_3"))


@pytest.mark.parametrize("key", ["cg_known", "cg_revoked", "old"])
def test_a_key_of_ours_is_not_sent_on_where_another_way_was_asked_first(path: Path, key: str) -> None:
    path.write_text(line("cg_known", "id: a") + line("old", "id: a, expires: 2020-01-01"))
    found = asked([Anonymous(), ApiKeys(path)], ("authorization", f"Bearer {key}"), ("x-api-key", "sk-1"))
    assert found == ("anonymous", "anonymous", {"authorization", "x-callgate-key"})


BAD = [
    ("expires: soon", "expires is not a date"),
    ("expires: 2027-01-31T00:00:00", "expires is not a date"),
    ("expires: [2027-01-31]", "expires is not a date"),
    ("expires:", "expires is not a date"),
    ("created: 1", "created is not a date"),
    ('note: "a\\nb"', "note is not one short line"),
]


@pytest.mark.parametrize(("field", "why"), BAD)
def test_fields_that_are_none_are_faults(path: Path, field: str, why: str) -> None:
    path.write_text(line("k", f"id: a, {field}"))
    with pytest.raises(ValueError, match=why):
        ApiKeys(path)


# -- files that change


@asynccontextmanager
async def following(path: Path, look_ms: int = 5000) -> AsyncIterator[tuple[ApiKeys, FileFollower]]:
    keys = ApiKeys(path)
    follower = FileFollower(path, keys.reload, settle_ms=20, look_ms=look_ms)
    stop = asyncio.Event()
    await follower.start()
    task = asyncio.get_running_loop().create_task(follower.run(stop))
    try:
        yield keys, follower
    finally:
        stop.set()
        await task
        await follower.close()


def known(keys: ApiKeys, *texts: str) -> list[bool]:
    return [keys.recognise({"authorization": f"Bearer {text}"}, None) is not None for text in texts]


async def test_an_edited_file_is_put_in_force(path: Path) -> None:
    path.write_text(line("k1", "id: a"))
    async with following(path) as (keys, follower):
        assert known(keys, "k1", "k2") == [True, False]
        both = line("k1", "id: a") + line("k2", "id: a")
        await until(lambda: path.write_text(both), lambda: known(keys, "k1", "k2") == [True, True])
        await until(
            lambda: path.write_text(line("k2", "id: a")), lambda: known(keys, "k1", "k2") == [False, True]
        )
        assert follower.notes() == []


async def test_a_fault_leaves_the_last_good_keys_and_is_told(path: Path) -> None:
    path.write_text(line("k1", "id: a"))
    async with following(path) as (keys, follower):
        await until(lambda: path.write_text("k2: {id: a}"), follower.notes)
        (note,) = follower.notes()
        assert note.startswith(f"identity: the last good keys are in force; {path}, line 1: not a SHA-256")
        assert "k2" not in note
        assert known(keys, "k1") == [True]
        await until(lambda: path.unlink(missing_ok=True), lambda: "No such file" in follower.notes()[0])
        assert known(keys, "k1") == [True]
        await until(lambda: path.write_text(line("k2", "id: a")), lambda: not follower.notes())
        assert known(keys, "k1", "k2") == [False, True]


async def test_the_link_swap_of_a_mounted_secret_is_followed(tmp_path: Path) -> None:
    def mount(name: str, text: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "keys.yaml").write_text(text)
        link = tmp_path / "..data_tmp"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        link.rename(tmp_path / "..data")

    mount("..2026_01", line("k1", "id: a"))
    path = tmp_path / "keys.yaml"
    path.symlink_to("..data/keys.yaml")
    async with following(path) as (keys, _):
        await until(
            lambda: mount("..2026_02", line("k2", "id: a")), lambda: known(keys, "k1", "k2") == [False, True]
        )
        assert known(keys, "k1", "k2") == [False, True]


async def test_a_file_that_tells_nobody_is_looked_at(tmp_path: Path) -> None:
    """As a link into another folder, or a network's file system."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    real, path = tmp_path / "there" / "keys.yaml", tmp_path / "here" / "keys.yaml"
    real.write_text(line("k1", "id: a"))
    path.symlink_to(real)
    async with following(path, look_ms=20) as (keys, _):
        real.write_text(line("k2", "id: a"))
        await until(lambda: None, lambda: known(keys, "k1", "k2") == [False, True])
        assert known(keys, "k1", "k2") == [False, True]


async def test_what_was_written_before_it_is_followed_is_not_missed(path: Path) -> None:
    path.write_text(line("k1", "id: a"))
    keys = ApiKeys(path)
    path.write_text(line("k2", "id: a"))
    await FileFollower(path, keys.reload).start()
    assert known(keys, "k1", "k2") == [False, True]


async def test_a_fault_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(line("k1", "id: a"))
    follower = FileFollower(path, ApiKeys(path).reload)
    path.write_text("k2: {id: a}")
    for _ in range(3):
        await follower.look()
    assert [record.message for record in caplog.records].count(
        f"the changed keys are not in force: {follower.faults[0]}"
    ) == 1
    assert "k2" not in caplog.text
