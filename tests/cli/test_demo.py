"""`callgate demo`: every situation does what it says, and can be read wherever it is shown."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from proxy.demo import run_demo
from proxy.demo.runner import _show
from proxy.demo.situations import SITUATIONS, Seen

CALL = 'search_orders({"user_id":42,"status":"open"})'
SEEN = Seen(
    texts=["Shall I?", "Done."],
    ran=[CALL],
    decisions=[
        {
            "gen_ai.tool.name": "search_orders",
            "arguments_written": {"user_id": 42, "status": "open"},
            "trail": [{"guard": guard, "verdict": "Allow"} for guard in ("loop", "schema", "policy")],
            "verdict": "Allow",
            "effect": "forward",
            "reasons": [],
        }
    ],
)


def shown(width: int, held: bool = True) -> list[str]:
    out = Console(file=io.StringIO(), width=width)
    _show(out, [(SITUATIONS[0], SEEN, held)])
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


async def test_every_situation_does_what_it_says() -> None:
    out = Console(file=io.StringIO(), width=80)
    assert await run_demo(out)
    assert isinstance(out.file, io.StringIO)
    lines = out.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(", as promised" in line for line in lines) == len(SITUATIONS)


def test_where_it_is_narrow_calls_stay_whole() -> None:
    lines = shown(80)
    assert f"  the application runs {CALL}" in lines
    at = lines.index('    search_orders {"user_id":42,"status":"open"}')
    assert lines[at + 1 : at + 3] == [
        "      loop Allow > schema Allow > policy Allow",
        "      → Allow (forward)",
    ]


def test_answers_are_told_apart() -> None:
    assert '  the application reads "Shall I?"' in shown(80)
    assert '  the application reads "Done."' in shown(80)


def test_where_it_is_wide_it_is_a_table() -> None:
    assert any("Decision trail" in line for line in shown(160))


@pytest.mark.parametrize("width", [80, 160])
def test_what_did_not_hold_is_said(width: int) -> None:
    assert shown(width, held=False)[-1] == f"Not as promised: {SITUATIONS[0].title}"
