"""``callgate policy diff``: other policies tried on what a real log has recorded."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from proxy.cli import app
from proxy.record import DecisionRecord, Record
from proxy.sinks.jsonl import JsonlSink
from proxy.tools import Registry
from tests.core.harness import run

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "policies"
REGISTRY = [spec.model_dump() for spec in Registry.load([ROOT / "schemas" / "tools"]).specs.values()]
REFUND = {"order_id": "ORD-004217", "amount": 20, "reason": "late"}


def called(*calls: tuple[str, dict[str, Any]], roles: tuple[str, ...]) -> dict[str, Any]:
    """A request that the model answers with these calls."""
    offered = sorted({name for name, _ in calls})
    return {
        "engine": "starter",
        "registry": REGISTRY,
        "principal": {"id": "ann", "roles": list(roles)},
        "request": {"tools": offered},
        "upstream": [
            {"calls": [{"name": name, "arguments": arguments} for name, arguments in calls]},
            {"text": "Done."},
        ],
    }


REQUESTS = [
    called(("get_order", {"order_id": "ORD-004217"}), roles=("support",)),
    called(("refund_order", REFUND), ("refund_order", REFUND | {"amount": 30}), roles=("support",)),
    called(("delete_user", {"user_id": 42}), roles=("viewer",)),
    called(("delete_user", {"user_id": 42}), roles=("admin",)),
    called(
        ("deploy_service", {"service": "checkout", "version": "1.4.2", "environment": "staging"}),
        roles=("developer",),
    ),
    called(("send_email", {"to": "a@example.com", "subject": "s", "body": "secret"}), roles=("support",)),
]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    found: list[Record] = []
    for number, request in enumerate(REQUESTS):
        for record in asyncio.run(run(request, stream=False)).records:
            changes: dict[str, Any] = {"time": f"2026-01-0{number + 1}T00:00:00.000Z"}
            if isinstance(record, DecisionRecord):
                changes |= {"trace_id": f"t{number}", "decision_id": f"t{number}{record.decision_id[5:]}"}
            found.append(replace(record, **changes))
    assert sum(isinstance(record, DecisionRecord) for record in found) >= 7
    return found


@pytest.fixture
def log(tmp_path: Path, records: list[Record]) -> Path:
    sink = JsonlSink(tmp_path / "audit", flush_interval_s=0)
    sink.start()
    for record in records:
        sink.write(record)
    assert sink.close()
    return tmp_path / "audit"


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """The starter policies with other data."""

    def with_data(**data: Any) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(STARTER, folder, ignore=shutil.ignore_patterns("*_test.rego"))
        content = yaml.safe_load((folder / "data.yaml").read_text())
        content["callgate"] |= data
        (folder / "data.yaml").write_text(yaml.safe_dump(content))
        return folder

    return with_data


def diff(before: Path, after: Path, log: Path, *arguments: str) -> Any:
    options = [str(before), str(after), "--log", str(log), *arguments]
    return CliRunner().invoke(app, ["policy", "diff", *options])


def found(before: Path, after: Path, log: Path, *arguments: str) -> dict[str, Any]:
    done = diff(before, after, log, "--format", "json", *arguments)
    assert done.exit_code == 0, done.output
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_policies_that_were_in_force_decide_as_they_did(log: Path) -> None:
    """All that they went by is in the log."""
    tally = found(STARTER, STARTER, log)
    # The viewer was not shown what it may not call: that was said before policy was asked.
    assert (tally["decisions"], tally["unasked"]) == (7, 1)
    assert tally["recorded"] == {"checked": 6, "unlike": 0, "example": None}
    assert tally["changes"] == {"same": 6}
    assert diff(STARTER, STARTER, log, "--fail-on", "any").exit_code == 0


def test_what_becomes_stricter_is_told_by_tool_and_role(log: Path, changed: Callable[..., Path]) -> None:
    after = changed(confirm={"effects": ["destructive", "write"], "tools": [], "environments": []})
    tally = found(STARTER, after, log)
    assert tally["tools"]["deploy_service"] == {"stricter": 1}
    assert tally["roles"]["developer"] == {"stricter": 1}
    assert tally["tools"]["delete_user"] == {"same": 1}
    (example,) = [one for one in tally["examples"] if one["tool"] == "deploy_service"]
    assert (example["before"], example["after"]) == ("allow", "confirm")
    assert example["reasons_after"] == ["deploy_service is write"]
    assert {"change": "stricter", "before": "allow", "after": "confirm"} in [
        {key: value for key, value in effect.items() if key != "decisions"} for effect in tally["effects"]
    ]


def test_what_becomes_looser_is_told_to_people(log: Path, changed: Callable[..., Path]) -> None:
    done = diff(STARTER, changed(confirm={"effects": []}), log, "--fail-on", "looser")
    assert done.exit_code == 1
    assert "1 would be looser" in done.output
    assert "looser: confirm → allow: 1" in done.output
    assert "B  allow" in done.output
    assert diff(STARTER, STARTER, log, "--fail-on", "looser").exit_code == 0


def test_only_what_is_asked_for_fails(log: Path, changed: Callable[..., Path]) -> None:
    looser = changed(confirm={"effects": []})
    assert diff(STARTER, looser, log).exit_code == 0
    assert diff(STARTER, looser, log, "--fail-on", "stricter").exit_code == 0
    assert diff(STARTER, looser, log, "--fail-on", "any").exit_code == 1


def test_parallel_calls_are_judged_together_again(log: Path, changed: Callable[..., Path]) -> None:
    """Each refund by itself is within the sum; both are not."""
    after = changed(read_first={}, parallel={"sums": {"refund_order": {"amount": 40}}})
    tally = found(STARTER, after, log)
    assert tally["tools"]["refund_order"] == {"stricter": 2}


def test_what_was_masked_matters_only_to_policies_that_look_at_it(
    log: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    after = changed()
    assert found(STARTER, after, log)["tools"]["send_email"] == {"same": 1}
    rule = 'package callgate.call\n\ndeny contains "no" if contains(input.call.arguments.body, "secret")\n'
    (after / "mail.rego").write_text(rule)
    tally = found(STARTER, after, log)
    assert tally["tools"]["send_email"] == {"indeterminate": 1}
    assert "/call/arguments/body" in tally["missing"]
    done = diff(STARTER, after, log, "--fail-on", "any")
    assert done.exit_code == 1
    assert "not in the log: /batch/0/arguments/body, /call/arguments/body" in done.output
    assert "secret" not in done.output


def test_a_stretch_of_time_can_be_chosen(log: Path) -> None:
    tally = found(STARTER, STARTER, log, "--since", "2026-01-03T00:00:00Z", "--until", "2026-01-05T00:00:00Z")
    assert set(tally["tools"]) == {"delete_user"}
    assert (tally["first"], tally["last"]) == ("2026-01-03T00:00:00.000Z", "2026-01-04T00:00:00.000Z")
    assert "No decision was recorded" in diff(STARTER, STARTER, log, "--since", "2027-01-01T00:00:00").output
    assert diff(STARTER, STARTER, log, "--since", "yesterday").exit_code == 2


def test_half_a_character_that_a_model_wrote_is_shown_somehow(
    log: Path, changed: Callable[..., Path], tmp_path: Path
) -> None:
    (segment,) = log.glob("*.jsonl")
    line = next(line for line in segment.read_bytes().splitlines() if b'"deploy_service"' in line)
    broken = line.replace(b'"checkout"', b'"\\ud800\\u001b[2J"').replace(b'"ann"', b'"\\ud800"')
    odd = tmp_path / "odd.jsonl"
    odd.write_bytes(broken + b"\n")
    after = changed(confirm={"effects": ["write"]})
    done = diff(STARTER, after, odd)
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert found(STARTER, after, odd)["decisions"] == 1


def test_faults_are_said(log: Path, tmp_path: Path) -> None:
    nowhere = diff(STARTER, STARTER, tmp_path / "nowhere")
    assert (nowhere.exit_code, "there is no audit log" in nowhere.output) == (1, True)
    (tmp_path / "bad.rego").write_text("package p\n\nx if {\n")
    bad = diff(STARTER, tmp_path / "bad.rego", log)
    assert (bad.exit_code, "bad.rego:" in bad.output) == (1, True)
    (segment,) = log.glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"tool":', b'"tool"', 1) + b'{"kind":"decision"}\n')
    broken = diff(STARTER, STARTER, log)
    assert (broken.exit_code, f"{segment}:" in broken.output) == (1, True)
