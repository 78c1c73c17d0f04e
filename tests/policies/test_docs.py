"""The guide to policies: all that it shows is true."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from proxy.cli import app
from proxy.config import Settings
from proxy.config.policies import PolicyBundle
from proxy.engines.rego.testing import RegoTests
from proxy.engines.regorus import RegorusEngine
from proxy.engines.sources.policyset import PolicySet
from proxy.parts.bundles import local_bundles
from proxy.sinks.jsonl import JsonlSink
from proxy.tools import ToolSpec

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "policies.md").read_text()
STARTER = PolicySet.load([ROOT / "policies"], tests=True)
SECTIONS = dict(re.findall(r"^### (.+?)\n(.+?)(?=^##|\Z)", GUIDE, re.MULTILINE | re.DOTALL))


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.+?)^```$", text, re.MULTILINE | re.DOTALL)


def merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below.get(key), value) for key, value in above.items()}


@cache
def results(section: str, followed: bool) -> dict[str, bool]:
    """The tests of a recipe, with the recipe followed or not."""
    text = SECTIONS[section]
    modules = {module.name: module.text for module in STARTER.modules}
    modules["recipe_test.rego"], data = "\n".join(blocks(text, "rego test")), orjson.loads(STARTER.data_json)
    if followed:
        modules |= {f"recipe{i}.rego": block for i, block in enumerate(blocks(text, "rego"))}
        for block in blocks(text, "yaml"):
            data = merged(data, yaml.safe_load(block))
    tests = RegoTests(PolicySet.of(modules, data))
    mine = [name for name in tests.names if tests.run(name).place.startswith("recipe_test.rego")]
    return {name: tests.run(name).passed for name in mine}


@pytest.mark.parametrize("section", SECTIONS)
def test_a_recipe_does_what_it_says(section: str) -> None:
    assert len(results(section, followed=True)) >= 2
    assert all(results(section, followed=True).values())


@pytest.mark.parametrize("section", SECTIONS)
def test_without_the_recipe_its_tests_fail(section: str) -> None:
    assert not all(results(section, followed=False).values())


def test_every_block_is_tried() -> None:
    kinds = re.findall(r"^```(.+)$", GUIDE, re.MULTILINE)
    executed = {
        "rego",
        "rego test",
        "yaml",
        "yaml tool",
        "yaml config",
        "json input",
        "json decision",
        "sh",
        "sh callgate",
    }
    assert set(kinds) == executed
    assert len(SECTIONS) >= 5


@pytest.mark.parametrize("kind", ["input", "decision"])
def test_examples_are_what_the_schemas_say(kind: str) -> None:
    schema = json.loads((ROOT / "schemas" / f"policy-{kind}.schema.json").read_text())
    (example,) = blocks(GUIDE, f"json {kind}")
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    assert [str(fault) for fault in validator.iter_errors(json.loads(example))] == []
    assert not validator.is_valid({})


def test_the_example_is_decided_as_it_says() -> None:
    (asked,), (answered,) = blocks(GUIDE, "json input"), blocks(GUIDE, "json decision")
    engine = RegorusEngine(PolicySet.load([ROOT / "policies"]))
    assert asyncio.run(engine.decide("callgate.call", json.loads(asked))) == json.loads(answered)


def test_the_data_and_the_tool_have_a_meaning() -> None:
    for block in blocks(GUIDE, "yaml"):
        assert set(yaml.safe_load(block)) <= set(orjson.loads(STARTER.data_json))
    for block in blocks(GUIDE, "yaml tool"):
        ToolSpec.model_validate(yaml.safe_load(block))


def test_the_bundle_that_it_builds_is_the_bundle_that_it_serves(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    private = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "bundle.pem").write_bytes(private.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "bundle.pub.pem").write_bytes(public)
    (command,) = blocks(GUIDE, "sh")
    configs = [Settings.model_validate(yaml.safe_load(block)) for block in blocks(GUIDE, "yaml config")]
    (settings,) = [config.within(tmp_path) for config in configs if config.policies.bundles]
    opa = subprocess.run([str(ROOT / "scripts/opa")], capture_output=True, text=True, check=True, timeout=600)
    path = os.pathsep.join([str(Path(opa.stdout.strip()).parent), os.environ["PATH"]])
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env={"PATH": path}, check=True, timeout=60)
    served, _ = settings.policies.bundles
    local = PolicyBundle(path=tmp_path / "callgate.tar.gz", verification=served.verification)
    policies = settings.policies.model_copy(update={"bundles": (local,)})
    found = PolicySet.load(local_bundles(settings.model_copy(update={"policies": policies}), {}))
    assert found.labels == ((str(tmp_path / "callgate.tar.gz"), "v42"),)
    assert orjson.loads(found.data_json) == orjson.loads(STARTER.data_json)


@pytest.mark.parametrize("command", "".join(blocks(GUIDE, "sh callgate")).splitlines())
def test_a_command_does_what_it_says(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("policies", "policies-next"):
        shutil.copytree(ROOT / "policies", name)
    Path("input.json").write_text(blocks(GUIDE, "json input")[0])
    sink = JsonlSink(Path("audit"))
    sink.start()
    assert sink.close()
    Path("audit/audit-000001.jsonl").touch()
    name, *arguments = shlex.split(command)
    assert name == "callgate"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def test_every_policy_and_every_label_is_explained() -> None:
    for policy in (ROOT / "policies").glob("*.rego"):
        if not policy.stem.endswith("_test"):
            assert f"`{policy.name}`" in GUIDE
    for label in ("untrusted", "private", "sends", "deployment"):
        assert f"| `{label}` |" in GUIDE


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.+)$", GUIDE, re.M)
    }
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", GUIDE):
        assert (
            target[1:] in anchors
            if target.startswith("#")
            else (ROOT / "docs" / target.partition("#")[0]).exists()
        ), target
