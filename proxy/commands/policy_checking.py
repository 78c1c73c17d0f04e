"""`callgate policy check`: every fault, or what would be in force."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from proxy.commands.policy_sources import Format, Sources, plain, policy_set, print_json, ready
from proxy.commands.terminal import ConfigFile, out
from proxy.engines.evaluating.compiling import Compiled, compiled
from proxy.engines.rego.text import written_rules
from proxy.engines.sources.policyset import PolicySet

_KNOWN = {
    "callgate.call": "every tool call",
    "callgate.request": "whole requests",
    "callgate.tools": "the tools that a model is shown",
    "callgate.result": "tool results",
}


def check(paths: Sources = None, config: ConfigFile = None, format: Format = "text") -> None:
    """Check policies and data as they are when they are loaded; exit 1 with every fault, by file and line."""
    policies = policy_set(paths, config)
    serving = ready(lambda: compiled(policies))
    if paths:  # the tests beside them are not served, and have to be Rego all the same
        tests = policy_set(paths, config, tests=True)
        ready(lambda: compiled(tests))
    found = _in_force(policies, serving)
    if format == "json":
        print_json(found)
        return
    _print(found)


def _in_force(policies: PolicySet, serving: Compiled) -> dict[str, Any]:
    packages: dict[str, dict[str, Any]] = {}
    for tree in orjson.loads(serving.engine.get_ast_as_json()):
        for rule in written_rules(tree):
            name = ".".join(rule.package)
            package = packages.setdefault(name, {"rules": 0, "files": []})
            package["rules"] += 1
            if rule.file not in package["files"]:
                package["files"].append(rule.file)
    for name, package in packages.items():
        package["decides"] = name in serving.packages
        read = serving.reads.get(name, frozenset())
        package["reads"] = sorted(read) if read is not None else None
    return {
        "revision": policies.revision,
        "bundles": dict(policies.labels),
        "packages": dict(sorted(packages.items())),
        "data": dict(_data(orjson.loads(policies.data_json))),
    }


def _data(data: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The first two levels of the data, and how large they are."""
    for key, value in data.items():
        if isinstance(value, dict):
            for inner, item in value.items():
                yield f"data.{key}.{inner}", _size(item)
        else:
            yield f"data.{key}", _size(value)


def _size(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return plain(value, 60)


def _print(found: dict[str, Any]) -> None:
    out.print(f"revision {found['revision']}", markup=False, soft_wrap=True)
    for label, revision in found["bundles"].items():
        out.print(f"bundle   {plain(label)} {plain(revision)}", markup=False, soft_wrap=True)
    table = _table("Packages", "package", "rules", "decides on", "looks at")
    for name, package in found["packages"].items():
        says, reads = "", ""
        if package["decides"]:
            says = _KNOWN.get(name, "nothing that Callgate asks")
            reads = "anything" if package["reads"] is None else ", ".join(package["reads"])
        table.add_row(Text(name), str(package["rules"]), says, reads)
    out.print(table)
    files = _table("Files", "", "")
    for name, package in found["packages"].items():
        for file in package["files"]:
            files.add_row(Text(file), Text(name))
    out.print(files)
    if "callgate.call" not in found["packages"]:
        out.print("callgate.call is not defined: every call would be denied.", style="bold red")
    data = _table("Data", "", "")
    for key, size in found["data"].items():
        data.add_row(Text(plain(key)), Text(size))
    out.print(data)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.show_header = any(columns)
    for column in columns:
        table.add_column(column, overflow="fold", justify="right" if column == "rules" else "left")
    return table
