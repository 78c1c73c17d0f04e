"""A candidate's policies beside those in force: seen in metrics and log, and nowhere else."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.http.conftest import Serve
from tests.http.harness import DROP, GET, POLICY, Callgate, RawAnswer, ask, post

CANDIDATES = {
    # Allows what is denied, and asks a person about what is allowed.
    "otherwise": """package callgate.call
decision := {"effect": "allow", "obligations": {"mask": ["/note"]}} if startswith(input.call.name, "drop")
decision := {"effect": "confirm", "reasons": [sprintf("really, %s?", [input.call.arguments.note])]} if {
	input.call.name == "get_user"
}
""",
    "alike": POLICY,
    "hangs": """package callgate.call
default decision := {"effect": "deny"}
decision := {"effect": "allow"} if {
	input.call.name != ""
	some i in numbers.range(1, 30000)
	some j in numbers.range(1, 30000)
	i * j == -1
}
""",
    "grows": """package callgate.call
default decision := {"effect": "deny"}
decision := {"effect": "allow"} if {
	input.call.name != ""
	count([n | some n in numbers.range(1, 300000000)]) == 1
}
""",
    "fails": 'package callgate.call\ndecision := {"effect": input.call.arguments.nothing}\n',
    "faulty": "package callgate.call\ndecision := {",
    "not there": None,
}
TURNS = ({"calls": [GET | {"arguments": {"id": 7, "note": "n-4711"}}, DROP]}, {"text": "Done."})


def tried(folder: Path, name: str, **options: Any) -> dict[str, Any]:
    """Settings with the policies of the tests in force, and a candidate."""
    (folder / "candidate").mkdir(exist_ok=True)
    rego = CANDIDATES[name]
    if rego is not None:
        (folder / "candidate" / "a.rego").write_text(rego)
    else:
        (folder / "candidate").rmdir()
    policies = folder / "0" / "policy.rego"
    return {
        "policies": {
            "paths": [str(policies)],
            "candidate": {"paths": [str(folder / "candidate")], "timeout_s": 0.5, **options},
        }
    }


async def counted(callgate: Callgate) -> dict[tuple[str, str], int]:
    async with aiohttp.ClientSession() as client, client.get(f"{callgate.app.admin_url}/metrics") as answer:
        families = text_string_to_metric_families(await answer.text())
    samples = [s for f in families for s in f.samples if s.name == "callgate_candidate_decisions_total"]
    return {
        (s.labels["package"].removeprefix("callgate."), s.labels["outcome"]): int(s.value)
        for s in samples
        if s.value
    }


async def settled(callgate: Callgate, decisions: int) -> dict[tuple[str, str], int]:
    """Wait until so many decisions on calls are compared; bounded by the test's own time-out."""
    while True:
        found = {key: n for key, n in (await counted(callgate)).items() if key[0] == "call"}
        if sum(found.values()) >= decisions:
            return found
        await asyncio.sleep(0.02)


async def readiness(callgate: Callgate) -> dict[str, Any]:
    async with aiohttp.ClientSession() as client, client.get(f"{callgate.app.admin_url}/readyz") as answer:
        body: dict[str, Any] = await answer.json()
        return body | {"http": answer.status}


def seen(answer: RawAnswer) -> tuple[int, bytes]:
    return answer.status, answer.body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", CANDIDATES)
async def test_the_client_gets_the_same_bytes_whatever_the_candidate(
    serve: Serve, tmp_path: Path, name: str, stream: bool
) -> None:
    beside = await serve(*TURNS, **tried(tmp_path, name))
    alone = await serve(*TURNS)
    answers = [await post(callgate.port, ask(stream=stream)) for callgate in (beside, alone)]
    assert seen(answers[0]) == seen(answers[1])
    assert answers[0].status == 200
    assert (await readiness(beside))["http"] == 200
    decided = [
        [
            (r["verdict"], r["effect"], r["gen_ai.tool.name"], r["policy_revision"])
            for r in await c.records("decision")
        ]
        for c in (beside, alone)
    ]
    assert decided[0] == decided[1]
    assert len(decided[0]) == 2


async def test_differences_are_counted_and_logged(serve: Serve, tmp_path: Path) -> None:
    callgate = await serve(*TURNS, **tried(tmp_path, "otherwise"))
    answer = await post(callgate.port, ask())
    found = await settled(callgate, 2)
    assert found == {("call", "looser"): 1, ("call", "stricter"): 1}
    differences = [r for r in await callgate.records("policy") if r["event"] == "differs"]
    decisions = {r["gen_ai.tool.name"]: r for r in await callgate.records("decision")}
    assert [(r["tool"], r["change"]) for r in differences] == [
        ("get_user", "stricter"),
        ("drop_table", "looser"),
    ]
    for difference in differences:
        decision = decisions[difference["tool"]]
        assert difference["trace_id"] == decision["trace_id"] == answer.headers["x-callgate-trace-id"]
        assert difference["call_id"] == decision["gen_ai.tool.call.id"]
        assert difference["revision"] == decision["policy_revision"] != difference["candidate_revision"]
    confirm, allow = differences
    assert confirm["candidate"]["effect"] == "confirm"
    assert confirm["candidate"]["reasons"] == ["really, n-4711?"]
    assert (allow["live"]["effect"], allow["candidate"]["effect"]) == ("deny", "allow")
    assert allow["live"]["reasons"] == ["drop_table is not allowed."]


@pytest.mark.parametrize("capture", ["digest", "off"])
async def test_what_is_not_captured_is_not_logged_by_a_difference(
    serve: Serve, tmp_path: Path, capture: str
) -> None:
    audit = {"sinks": [{"kind": "jsonl", "path": str(tmp_path / "0" / "audit")}], "capture": capture}
    callgate = await serve(*TURNS, **tried(tmp_path, "otherwise"), audit=audit)
    await post(callgate.port, ask())
    await settled(callgate, 2)
    (confirm, _) = [r for r in await callgate.records("policy") if r["event"] == "differs"]
    assert confirm["candidate"]["reasons"] == ["really, [masked]?"]
    log = b"".join(file.read_bytes() for file in callgate.audit.glob("*.jsonl"))
    assert b"n-4711" not in log


async def test_policies_that_decide_alike_leave_nothing_in_the_log(serve: Serve, tmp_path: Path) -> None:
    callgate = await serve(*TURNS, **tried(tmp_path, "alike"))
    await post(callgate.port, ask())
    assert await settled(callgate, 2) == {("call", "same"): 2}
    assert [r["event"] for r in await callgate.records("policy")] == ["loaded"]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("hangs", "did not answer within 0.5 s"),
        ("grows", "SIGABRT"),
        ("faulty", "none are asked; .*a.rego:2"),
        ("not there", "none are asked; .*no such file"),
    ],
)
async def test_a_candidate_that_fails_is_counted_and_told(
    serve: Serve, tmp_path: Path, name: str, note: str
) -> None:
    callgate = await serve(*TURNS, **tried(tmp_path, name))
    await post(callgate.port, ask())
    assert await settled(callgate, 2) == {("call", "failed"): 2}
    ready = await readiness(callgate)
    assert (ready["http"], ready["status"]) == (200, "ready")
    assert [n for n in ready["notes"] if re.search(f"^policies.candidate: .*{note}", n)], ready


async def test_requests_do_not_wait_for_a_candidate_that_hangs(serve: Serve, tmp_path: Path) -> None:
    callgate = await serve(*TURNS, **tried(tmp_path, "hangs", timeout_s=30))
    async with asyncio.timeout(10):  # far less than one evaluation may take
        for _ in range(20):
            assert (await post(callgate.port, ask())).status == 200
    assert await counted(callgate) == {}
    await callgate.stop()
    assert callgate.app.stopping


async def test_without_a_candidate_there_is_no_such_metric(serve: Serve) -> None:
    callgate = await serve(*TURNS)
    async with aiohttp.ClientSession() as client, client.get(f"{callgate.app.admin_url}/metrics") as answer:
        assert "callgate_candidate" not in await answer.text()
