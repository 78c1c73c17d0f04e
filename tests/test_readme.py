"""The front page keeps its word."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml

from proxy.cli import app
from proxy.config import Settings
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_configuration_loads() -> None:
    (block,) = blocks("yaml")
    settings = Settings.model_validate(yaml.safe_load(block))
    assert settings.upstreams[0].name == "openai"


async def test_the_policy_decides() -> None:
    (block,) = blocks("rego")
    engine = RegorusEngine(PolicySet.of({"call.rego": block}, {}))
    decided = [
        (await engine.decide("callgate.call", {"call": {"name": name}}))["effect"]
        for name in ("search_orders", "delete_user")
    ]
    assert decided == ["allow", "deny"]


def test_the_client_is_python_and_the_commands_are_there() -> None:
    (block,) = blocks("python")
    ast.parse(block)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = set(re.findall(r"make ([a-z-]+)", "".join(blocks("sh"))))
    assert asked <= targets
    assert {"demo", "test", "setup"} <= asked


def test_the_pages_say_where_the_tests_are() -> None:
    """The threat model's proofs are files and folders that there are."""
    text = (ROOT / "THREAT_MODEL.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert named
    assert all((ROOT / path).exists() for path in named), named


INDEX = (ROOT / "docs/README.md").read_text(encoding="utf-8")


def test_every_page_can_be_found() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert len(pages) > 15
    assert pages <= set(re.findall(r"\]\((\w[\w-]*\.md)[)#]", INDEX))
    assert pages <= set(re.findall(r"\]\(docs/(\w[\w-]*\.md)[)#]", README))
    assert "(docs/README.md)" in README


def _commands(command: Any, *names: str) -> Iterator[str]:
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(names)
    for name, one in below.items():
        if not one.hidden:
            yield from _commands(one, *names, name)


def test_every_command_can_be_found() -> None:
    commands = set(_commands(typer.main.get_command(app), "callgate"))
    assert {"callgate serve", "callgate keys revoke"} <= commands
    assert set(re.findall(r"^\| `(callgate [^`]+)` \|", INDEX, re.MULTILINE)) == commands


def test_what_is_generated_has_one_command() -> None:
    command = ["make", "--dry-run", "--always-make", "schemas"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert "tests/config/reference.py" in done.stdout
    assert "schema tool > schemas/tool.schema.json" in done.stdout
