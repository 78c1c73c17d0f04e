"""``callgate policy eval``: one decision and its grounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from proxy.cli import app

POLICIES = Path(__file__).parents[2] / "policies"
CALL = {"id": "call_1", "name": "delete_user", "arguments": {"user_id": 42}}
INPUT: dict[str, Any] = {
    "principal": {"id": "ann", "roles": ["viewer"], "tenant": "", "claims": {}},
    "conversation": {"id": "c", "query": "q", "turn": 1},
    "model": "m",
    "protocol": "chat",
    "batch": [CALL],
    "history": {"calls": [], "labels": [], "counts": {}},
    "approval": None,
    "time": "2026-01-01T12:00:00Z",
    "call": CALL,
    "tool": {
        "registered": True,
        "name": "delete_user",
        "effect": "destructive",
        "labels": [],
        "references": {},
        "tags": [],
    },
}
ADMIN = INPUT | {"principal": INPUT["principal"] | {"roles": ["admin"]}}


def ask(document: Any, *arguments: str) -> Any:
    given = document if isinstance(document, str) else json.dumps(document)
    return CliRunner().invoke(app, ["policy", "eval", "--input", "-", *arguments], input=given)


def test_a_decision_comes_with_the_rules_that_made_it() -> None:
    done = ask(INPUT, str(POLICIES))
    assert done.exit_code == 0
    assert done.output.startswith("deny\n  role 'viewer' may not call delete_user\n")
    assert "callgate.call.deny" in done.output
    assert "→ role 'viewer' may not call delete_user" in done.output
    assert "environments.rego:" in done.output
    assert "tried" not in done.output


def test_on_demand_it_is_told_where_the_others_stopped() -> None:
    done = ask(ADMIN, str(POLICIES), "--explain")
    assert done.output.startswith("confirm\n  delete_user is destructive\n")
    _, tried = done.output.split("Rules that were tried, and where each stopped")
    assert "flow.rego:" in tried


def test_programs_are_told_places() -> None:
    found = json.loads(ask(ADMIN, str(POLICIES), "--explain", "--format", "json").stdout)
    assert found["decision"]["effect"] == "confirm"
    (step,) = [step for step in found["fired"] if step["rule"] == "callgate.call.confirm"]
    assert step["values"] == ["delete_user is destructive"]
    assert step["place"]["file"] == str(POLICIES / "confirmation.rego")
    assert found["stopped"]


def test_a_file_is_read_as_well(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text(json.dumps(INPUT))
    done = CliRunner().invoke(app, ["policy", "eval", "--input", str(file), str(POLICIES)])
    assert done.output.startswith("deny")
    gone = CliRunner().invoke(app, ["policy", "eval", "--input", str(tmp_path / "no"), str(POLICIES)])
    assert gone.exit_code == 1
    assert "No such file" in gone.output


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("{", "not JSON"),
        ('{"time": 1, "time": 2}', "duplicate"),
        ("[]", "it has to be an object"),
        (
            {key: value for key, value in INPUT.items() if key != "batch"},
            'input: "batch" is a required property',
        ),
        (INPUT | {"time": "yesterday"}, "input/time: "),
        (INPUT | {"more": 1}, "'more' was unexpected"),
        (INPUT | {"call": CALL | {"arguments": 5}}, "input/call/arguments: "),
    ],
)
def test_an_input_that_callgate_would_not_give_is_refused(document: Any, fault: str) -> None:
    done = ask(document, str(POLICIES))
    assert done.exit_code == 1
    assert fault in done.output


def test_another_package_is_given_what_it_likes(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text("package mine\n\ndecision := input.x + 1\n")
    assert ask({"x": 1}, str(tmp_path), "--package", "mine").output.startswith("2\n")


def test_the_other_packages_of_callgate_are_told_what_they_are_told(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text('package callgate.result\n\ndecision := {"effect": "allow"}\n')
    asked = {key: value for key, value in INPUT.items() if key != "call"}
    asked["result"] = {"call_id": "1", "tool": "x", "content": "", "truncated": False}
    assert ask(asked, str(tmp_path), "--package", "callgate.result").output == "allow\n"
    assert (
        "is not what callgate.result is told"
        in ask(INPUT, str(tmp_path), "--package", "callgate.result").output
    )


def test_what_decides_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(
        "package callgate.call\n\ndecision := 1 if input.call.name == 'x'\n".replace("'", '"')
    )
    undefined = ask(INPUT, str(tmp_path))
    assert (undefined.exit_code, "undefined, which denies" in undefined.output) == (1, True)
    unknown = ask({}, str(tmp_path), "--package", "mine")
    assert (unknown.exit_code, "these packages decide: callgate.call" in unknown.output) == (1, True)
    (tmp_path / "p.rego").write_text(
        "package callgate.call\n\ndecision := x if x := 1 / (input.conversation.turn - 1)\n"
    )
    failed = ask(INPUT, str(tmp_path))
    assert (failed.exit_code, "p.rego:3: divide by zero" in failed.output) == (1, True)


def test_what_a_model_wrote_moves_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "p.rego").write_text(
        'package callgate.call\n\ndecision := {"effect": "deny", "reasons": [x]} if x := input.call.name\n'
    )
    document = INPUT | {"call": CALL | {"name": "\x1b[2J\nx"}}
    done = ask(document, str(tmp_path))
    assert done.exit_code == 0
    assert "\x1b" not in done.output
