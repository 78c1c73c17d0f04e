"""Python agents against a real Callgate: each runs what was judged and no more, and ends in a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.engines.sources.policyset import PolicySet
from tests.clients.cases import CASES, Case
from tests.clients.python_agents import CLIENTS, tools
from tests.http.conftest import Serve


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "body"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.filterwarnings("ignore")  # what other packages warn of is not ours to mend
async def test_it_runs_what_was_judged_and_ends_in_a_text(
    serve: Serve, client: str, case: Case, stream: bool
) -> None:
    callgate = await serve(case.script)
    executed: list[str] = []
    text = await CLIENTS[client](callgate.url, case.name, tools(executed), stream)
    # Some run the calls of a turn in threads, at the same time.
    assert (sorted(executed), text) == (case.executed, case.text)
    records = await callgate.records("decision")
    assert sum(record["effect"] == "forward" for record in records) == len(executed)


async def test_each_decision_names_the_policies_that_made_it(serve: Serve, tmp_path: Path) -> None:
    callgate = await serve(*[case.script for case in CASES])
    for case in CASES:
        await CLIENTS["openai-agents chat"](callgate.url, case.name, tools([]), True)
    records = await callgate.records("decision")
    revision = PolicySet.load([tmp_path / "0/policy.rego"]).revision
    assert {record["effect"] for record in records} == {"forward", "settle"}
    assert {record["policy_revision"] for record in records} == {revision}
