"""Callgate as it is served in earnest: own keys, registered tools, starter policies over much data, audit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml

from bench.workload import API_KEY, CUSTOMERS, ROLE, tools
from proxy.parts import packaged

ROLES, TOOLS_A_ROLE = 100, 10
KEY_VARIABLE = "BENCH_PROVIDER_KEY"


def policy_data() -> dict[str, Any]:
    """A thousand role and tool entries and ten thousand customers, beside the starter policies' data."""
    names = [tool["name"] for tool in tools()]
    roles: dict[str, Any] = {
        f"team-{number}": {
            "tools": [f"tool_{number}_{i}" for i in range(TOOLS_A_ROLE)],
            "effects": ["read", "write"],
            "environments": ["development"],
        }
        for number in range(ROLES - 1)
    }
    roles[ROLE] = {"tools": names, "effects": ["read", "write"]}
    customers = {f"cus_{number:05}": True for number in range(CUSTOMERS)}
    return {"callgate": {"roles": roles}, "reference": {"customers": customers}}


def write_config(
    folder: Path, port: int, admin_port: int, upstream_port: int, redis: str | None = None
) -> Path:
    """Write callgate.yaml and all that it names into ``folder``; returns its path.

    ``redis``: the URL of the store; without it, state is kept in the process.
    """
    for name in ("tools", "data"):
        (folder / name).mkdir()
    for tool in tools():
        _write(folder / "tools" / f"{tool['name']}.yaml", tool)
    _write(folder / "data" / "data.yaml", policy_data())
    digest = hashlib.sha256(API_KEY.encode()).hexdigest()
    _write(folder / "keys.yaml", {digest: {"id": "order-desk-bot", "roles": [ROLE], "tenant": "shop"}})
    config: dict[str, Any] = {
        "listen": {"port": port},
        "admin": {"port": admin_port},
        "upstreams": [
            {
                "name": "bench",
                "base_url": f"http://127.0.0.1:{upstream_port}/v1",
                "auth": {"env": KEY_VARIABLE},
            }
        ],
        "identity": [{"kind": "api_keys", "path": "keys.yaml"}],
        "policies": {"paths": [str(packaged("policies")), "data"]},
        "tools": {"paths": ["tools"], "unregistered": "deny"},
        "audit": {"sinks": [{"kind": "jsonl", "path": "audit"}]},
    }
    if redis is not None:
        config["store"] = {"kind": "redis", "url": redis}
    _write(folder / "callgate.yaml", config)
    return folder / "callgate.yaml"


def _write(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
