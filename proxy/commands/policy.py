"""`callgate policy`: check policies, test them, ask them, and try a change on what was recorded."""

from __future__ import annotations

import typer

from proxy.commands import policy_asking, policy_checking, policy_diffing, policy_testing

group = typer.Typer(
    help="Policies: check, test and ask them, and try a change on recorded decisions.", no_args_is_help=True
)
group.command("check")(policy_checking.check)
group.command("test")(policy_testing.run_tests)
group.command("eval")(policy_asking.evaluate)
group.command("diff")(policy_diffing.diff)
