"""docs/identity.md: its examples load, its commands run, and what they make is recognised."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from typer.testing import CliRunner

from proxy import parts
from proxy.cli import app
from proxy.config import load
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.http.identity import Identity, Unidentified
from proxy.http.identity.key_editing import KeyFile
from proxy.model import Principal

PAGE = (Path(__file__).parents[2] / "docs" / "identity.md").read_text(encoding="utf-8")


def examples(mark: str) -> list[str]:
    return re.findall(rf"<!-- {mark} -->\n```\w+\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)


SETTINGS = examples("example: a test loads this")


def who(folder: Path, text: str, *headers: tuple[str, str]) -> Principal:
    path = folder / "callgate.yaml"
    path.write_text(text, encoding="utf-8")
    identity = Identity(parts.recognisers(load(path, {})))
    return identity.identify(CIMultiDictProxy(CIMultiDict(headers)), "10.20.0.5").principal


def run(line: str) -> None:
    """One command of the page, with its redirections."""
    words = shlex.split(line)
    given = Path(words[words.index("<") + 1]).read_text() if "<" in words else None
    ends = [words.index(sign) for sign in "<>" if sign in words]
    done = CliRunner().invoke(app, words[1 : min(ends, default=None)], input=given)
    assert done.exit_code == 0, (line, done.output)
    if ">" in words:
        Path(words[words.index(">") + 1]).write_text(done.stdout)


@pytest.mark.parametrize("text", SETTINGS)
def test_the_settings_load(tmp_path: Path, text: str) -> None:
    (tmp_path / "callgate.yaml").write_text(text, encoding="utf-8")
    assert load(tmp_path / "callgate.yaml", {}).identity


def test_the_commands_do_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, rotated, revoked = examples("commands: a test runs this")
    settings = next(text for text in SETTINGS if "api_keys" in text)

    def owner() -> Principal:
        return who(tmp_path, settings, ("authorization", f"Bearer {Path('key').read_text().strip()}"))

    for line in made.splitlines():
        run(line)
    support = Principal("support-bot", ("support",), "acme", kind="api_keys")
    assert owner() == support
    first = Path("key").read_text().strip()
    for line in rotated.splitlines():
        run(line)
    assert owner() == who(tmp_path, settings, ("x-callgate-key", first)) == support
    add, by_key, by_id = revoked.splitlines()
    run(add)
    run(by_key)
    with pytest.raises(Unidentified):
        owner()
    assert who(tmp_path, settings, ("x-callgate-key", first)) == support
    run(by_id)
    with pytest.raises(Unidentified):
        who(tmp_path, settings, ("x-callgate-key", first))


def test_the_key_file_is_read() -> None:
    (text,) = examples("key file: a test reads this")
    owners = [key.owner.id for key in KeyFile(text, "keys.yaml").keys.values()]
    assert owners == ["support-bot", "ops-agent"]


def test_the_token_that_is_made_is_recognised(tmp_path: Path) -> None:
    (program,) = examples("python: a test runs this")
    (settings,) = [text for text in SETTINGS if "header: x-id-token" in text]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = who(tmp_path, settings, ("x-id-token", done.stdout.strip()))
    assert (found.id, found.roles, found.claims["aud"]) == ("ada", ("support",), "callgate")


@pytest.mark.parametrize(("amr", "effect"), [(["pwd", "mfa"], "allow"), (["pwd"], "deny"), (None, "deny")])
async def test_the_policy_reads_claims(amr: list[str] | None, effect: str) -> None:
    (rule,) = re.findall(r"^```rego\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
    text = f'package callgate.call\n\ndefault decision := {{"effect": "allow"}}\n\n{rule}'
    engine = RegorusEngine(PolicySet.of({"call.rego": text}, {}), timeout_s=30.0)
    claims = {"amr": amr} if amr else {}
    try:
        await engine.start()
        decided = await engine.decide(
            "callgate.call", {"call": {"name": "deploy"}, "principal": {"claims": claims}}
        )
    finally:
        await engine.close()
    assert decided["effect"] == effect
