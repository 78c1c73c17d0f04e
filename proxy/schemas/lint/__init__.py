"""The lint: what makes a tool hard to call rightly, or easy to misuse, and what to write instead.

docs/schemas.md lists the codes of the findings; they are stable.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.schemas.definitions import Definition
from proxy.schemas.lint.findings import GRADES, Finding, Grade, Graded, Report
from proxy.schemas.lint.together import lint_together
from proxy.schemas.lint.tools import lint_tool, suspicions

__all__ = ["GRADES", "Finding", "Grade", "Graded", "Report", "lint", "suspicions"]


def lint(definitions: Sequence[Definition]) -> Report:
    """Grade tools, each by itself and all beside one another; whatever they hold, there is a report."""
    return Report(tuple(map(lint_tool, definitions)), tuple(lint_together(definitions)))
