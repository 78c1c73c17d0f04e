"""`callgate policy test`: the tests that are written in Rego, and how much of the policies they reach."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from proxy.commands.policy_sources import Format, Sources, plain, policy_set, print_json, ready
from proxy.commands.terminal import ConfigFile, err, out, refuse
from proxy.engines.rego.coverage import Coverage
from proxy.engines.rego.testing import RegoTests, TestResult

_STYLES = {"pass": "green", "fail": "bold red", "error": "bold red", "skip": "yellow"}


def run_tests(
    paths: Sources = None,
    config: ConfigFile = None,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Show which lines of the policies the tests reach.")
    ] = False,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=100, help="Exit 1 where less than this percentage of the lines is reached."),
    ] = None,
    run: Annotated[
        str, typer.Option("--run", "-r", help="Only tests whose name (data.package.test_...) matches.")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Name tests that pass, too.")] = False,
    format: Format = "text",
) -> None:
    """Run every rule whose name begins with test_; exit 1 where one is not true."""
    wanted = _pattern(run)
    policies = policy_set(paths, config, tests=True)
    counted = coverage or threshold is not None
    tests = ready(lambda: RegoTests(policies, coverage=counted))
    results = [tests.run(name) for name in tests.names if wanted.search(f"data.{name}")]
    if not results:
        refuse(
            "Nothing was tested", ["no rule whose name begins with test_ was found, or none matches --run"]
        )
    found = tests.coverage() if counted else None
    if format == "json":
        print_json(_as_json(results, found))
    else:
        _print(results, verbose, found)
    if any(result.outcome in ("fail", "error") for result in results):
        raise typer.Exit(1)
    if found is not None and threshold is not None and found.percent < threshold:
        err.print(f"The tests reach {found.percent:.1f} % of the lines, less than {threshold:g} %.")
        raise typer.Exit(1)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as exc:
        raise typer.BadParameter(f"{text!r} is not a regular expression: {exc}") from None


def _print(results: Sequence[TestResult], verbose: bool, coverage: Coverage | None) -> None:
    for result in results:
        if verbose or result.outcome != "pass":
            _print_result(result)
    counts = Counter[str](result.outcome for result in results)
    words = [f"{word.upper()}: {counts[word]}/{len(results)}" for word in _STYLES if counts[word]]
    out.print("  ".join(words), markup=False, highlight=False)
    if coverage is not None:
        _print_coverage(coverage)


def _print_result(result: TestResult) -> None:
    style = _STYLES[result.outcome]
    line = Text.assemble((result.outcome.upper(), style), f"  data.{result.name}  {result.place}")
    out.print(line, soft_wrap=True)
    if result.error:
        out.print(Text(f"      {result.error}"), soft_wrap=True)
    for case, passed in result.cases:
        out.print(Text(f"      {'PASS' if passed else 'FAIL'}  {plain(case)}"), soft_wrap=True)
    for printed in result.printed:
        out.print(Text(f"      {plain(printed, 1000)}"), soft_wrap=True)


def _print_coverage(coverage: Coverage) -> None:
    table = Table(title="Lines that tests reach", title_justify="left", box=None, pad_edge=False)
    for column, justify in (
        ("file", "left"),
        ("lines", "right"),
        ("reached", "right"),
        ("not reached", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for file in coverage.files:
        gaps = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in file.gaps())
        lines = len(file.covered) + len(file.uncovered)
        table.add_row(Text(file.file), str(lines), f"{file.percent:.1f} %", gaps)
    lines = coverage.covered + coverage.uncovered
    table.add_row(Text("all", "bold"), str(lines), f"{coverage.percent:.1f} %", "")
    out.print(table)


def _as_json(results: Sequence[TestResult], coverage: Coverage | None) -> dict[str, Any]:
    """Each test as ``opa test --format json`` has it; and the coverage."""
    found: dict[str, Any] = {"tests": [_test(result) for result in results]}
    if coverage is not None:
        found["coverage"] = {
            "percent": round(coverage.percent, 2),
            "files": {
                file.file: {
                    "percent": round(file.percent, 2),
                    "covered": file.covered,
                    "not_covered": file.uncovered,
                }
                for file in coverage.files
            },
        }
    return found


def _test(result: TestResult) -> dict[str, Any]:
    package, _, name = result.name.rpartition(".")
    file, _, row = result.place.rpartition(":")
    test: dict[str, Any] = {
        "location": {"file": file, "row": int(row)},
        "package": f"data.{package}",
        "name": name,
    }
    flag = {"fail": "fail", "skip": "skip"}.get(result.outcome)
    test |= {flag: True} if flag else {}
    test |= {"error": result.error} if result.error else {}
    if result.cases:
        test["cases"] = dict(result.cases)
    if result.printed:
        test["printed"] = result.printed
    return test
