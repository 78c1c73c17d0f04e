"""The compose file: what can be said of it without an engine, and that its configurations load."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from proxy.config import Settings, load
from proxy.scripted import load_scripts

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

# The keys of the compose specification that this file has a use for: a misspelt one is an error here too.
KNOWN = {
    "build", "cap_drop", "command", "entrypoint", "healthcheck", "image", "mem_limit", "pids_limit", "ports",
    "profiles", "read_only", "restart", "security_opt", "stop_grace_period", "volumes",
}  # fmt: skip


def _binds(service: dict[str, Any]) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    for volume in service.get("volumes", []):
        default = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume)
        source, target, *mode = default.split(":")
        found.append((source, target, mode[0] if mode else "rw"))
    return found


def test_it_has_only_keys_of_the_specification() -> None:
    assert set(COMPOSE) <= {"name", "services", "volumes"}
    assert {key for service in SERVICES.values() for key in service} <= KNOWN


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["image"] == f"callgate:{__version__}"


@pytest.mark.parametrize("name", SERVICES)
def test_what_it_mounts_exists_and_only_a_volume_is_writable(name: str) -> None:
    for source, target, mode in _binds(SERVICES[name]):
        if source.startswith("."):
            assert (DEPLOY / source).exists(), source
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]
            assert target == "/var/lib/callgate"


@pytest.mark.parametrize("name", SERVICES)
def test_it_builds_the_image_from_the_repository(name: str) -> None:
    build = SERVICES[name]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).resolve() == DEPLOY / "Dockerfile"


def test_its_ports_are_published_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SERVICES)
def test_only_the_demo_needs_to_be_asked_for(name: str) -> None:
    assert SERVICES[name].get("profiles", []) == ([] if name == "callgate" else ["demo"])


@pytest.fixture(params=["callgate.yaml", "demo.yaml"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return load(DEPLOY / "compose" / request.param, {})


def test_the_configuration_agrees_with_the_compose_file(settings: Settings) -> None:
    targets = [target for _, target, _ in _binds(SERVICES["callgate"])]
    published = {int(port.rsplit(":", 1)[1]) for port in SERVICES["callgate"]["ports"]}
    assert published == {settings.listen.port, settings.admin.port}
    assert {settings.listen.host, settings.admin.host} == {"0.0.0.0"}
    assert {str(path) for path in (*settings.policies.paths, *settings.tools.paths)} <= set(targets)
    assert all(str(sink.path).startswith("/var/lib/callgate/") for sink in settings.audit.sinks)


def test_streams_may_end_before_the_container_is_killed(settings: Settings) -> None:
    grace = SERVICES["callgate"]["stop_grace_period"]
    assert float(grace.removesuffix("s")) > settings.limits.drain_s


def test_the_demo_asks_the_scripted_provider() -> None:
    provider = SERVICES["provider"]
    port = provider["command"][provider["command"].index("--port") + 1]
    (upstream,) = load(DEPLOY / "compose" / "demo.yaml", {}).upstreams
    assert str(upstream.base_url).rstrip("/") == f"http://provider:{port}/v1"


def test_the_health_check_asks_for_readiness() -> None:
    port = load(DEPLOY / "compose" / "callgate.yaml", {}).admin.port
    code = SERVICES["callgate"]["healthcheck"]["test"][-1]
    compile(code, "healthcheck", "exec")
    assert "/readyz" in code
    assert str(port) in code


def test_the_demo_script_can_be_played() -> None:
    (script,) = load_scripts(DEPLOY / "compose" / "script.yaml")
    assert script.model == "*"
    assert [[call.name for call in turn.calls] for turn in script.turns] == [
        ["get_weather"],
        ["get_weather"],
        [],
    ]
