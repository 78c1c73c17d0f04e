"""A key file that changes while it is read: what it says in the end is in force."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from proxy.http.identity import ApiKeys, FileFollower, Unidentified


def line(key: str) -> str:
    return f"{sha256(key.encode()).hexdigest()}: {{id: {key}}}\n"


class Rewritten:
    """Reads the keys while another text stands in the file for a moment."""

    def __init__(self, path: Path, keys: ApiKeys, text: str) -> None:
        self.path, self.keys, self.text = path, keys, text
        self.now: Callable[[], None] = keys.reload

    def meanwhile(self) -> None:
        kept = self.path.read_text()
        self.path.write_text(self.text)
        try:
            self.keys.reload()
        finally:
            beside = self.path.with_suffix(".new")
            beside.write_text(kept)
            beside.replace(self.path)

    def __call__(self) -> None:
        self.now()


@pytest.mark.parametrize(
    "text", [line("cg_a") + line("cg_b"), "", "no key\n"], ids=["back", "empty", "broken"]
)
async def test_a_revoked_key_does_not_come_back(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(line("cg_a") + line("cg_b"))
    keys = ApiKeys(path)
    reading = Rewritten(path, keys, text)
    follower = FileFollower(path, reading)
    await follower.start()
    path.write_text(line("cg_a"))
    reading.now = reading.meanwhile
    await follower.look()
    reading.now = keys.reload
    await follower.look()
    assert follower.faults == ()
    found = keys.recognise({"authorization": "Bearer cg_a"}, None)
    assert found is not None
    assert found.principal.id == "cg_a"
    with pytest.raises(Unidentified):
        keys.recognise({"authorization": "Bearer cg_b"}, None)
