"""docs/errors.md names every error that Callgate can give, and none that it cannot."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Not on a request's way: the scripted provider, the demo, the command line and its parts.
_ELSEWHERE = {"scripted", "demo", "replay", "commands", "schemas"}
# What answers the model, and not the client.
_TO_THE_MODEL = ("verdicts.py", "exchange.py", "pipeline.py", "approvals.py", "guards/*.py", "gates/*.py")
_ROW = re.compile(r"^\| `([a-z_]+)` \|(?: ([0-9, ]+) \|)?", re.MULTILINE)


def _page() -> tuple[str, str]:
    text = (ROOT / "docs/errors.md").read_text()
    client, model = text.split("## What the model gets")
    return client, model


def _trees() -> Iterator[ast.Module]:
    for file in (ROOT / "proxy").rglob("*.py"):
        if not _ELSEWHERE.intersection(file.parts):
            yield ast.parse(file.read_text())


def _status_and_code(node: ast.AST) -> Iterator[tuple[str, int | None]]:
    """``(502, "upstream_broken", ...)`` in a call; ``code = "a" if ... else "b"``."""
    if isinstance(node, ast.Call):
        for status, code in zip(node.args, node.args[1:], strict=False):
            match status, code:
                case ast.Constant(int(number)), ast.Constant(str(word)) if 400 <= number < 600:
                    yield word, number
    elif isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == ["code"]:
        yield from ((word, None) for word in _texts(node.value))


def _texts(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Constant(str(word)):
            yield word
        case ast.IfExp(_, body, orelse):
            yield from (*_texts(body), *_texts(orelse))


def _types(tree: ast.Module) -> Iterator[str]:
    """``type="declined"`` in a call, ``type: str = "denied"`` in a class or a signature."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword("type", ast.Constant(str(word))):
                yield word
            case ast.AnnAssign(ast.Name("type"), _, ast.Constant(str(word))):
                yield word
            case ast.arguments():
                named = zip(reversed(node.args), reversed(node.defaults), strict=False)
                yield from (
                    default.value
                    for name, default in (*named, *zip(node.kwonlyargs, node.kw_defaults, strict=True))
                    if name.arg == "type" and isinstance(default, ast.Constant)
                )


def _given() -> dict[str, set[int | None]]:
    found: dict[str, set[int | None]] = {}
    for tree in _trees():
        for node in ast.walk(tree):
            for code, status in _status_and_code(node):
                found.setdefault(code, set()).add(status)
    return found


def test_every_code_is_there_with_its_status() -> None:
    given = _given()
    assert len(given) > 25
    rows = {
        code: {int(number) for number in statuses.split(",")} for code, statuses in _ROW.findall(_page()[0])
    }
    admin = {"no_such_ticket": {404}, "already_decided": {409}, "cross_site": {403}}
    for code, statuses in given.items():
        assert code in rows or code in admin, f"{code} is not on the page"
        assert statuses - {None} <= rows.get(code, admin.get(code, set())), code
    assert rows.keys() <= given.keys(), "the page names what nothing gives"
    assert all(f"`{code}` ({min(statuses)})" in _page()[0] for code, statuses in admin.items())


def test_every_type_that_the_model_reads_is_there() -> None:
    files = [file for pattern in _TO_THE_MODEL for file in (ROOT / "proxy").glob(pattern)]
    types = {word for file in files for word in _types(ast.parse(file.read_text()))}
    assert {"denied", "invalid_arguments"} <= types
    assert {word for word, _ in _ROW.findall(_page()[1])} == types


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('raise UpstreamFailed(502, "a_code", "words")', [("a_code", 502)]),
        ('await fail("outcome", 404, "other", message)', [("other", 404)]),
        ('code = "one" if x else "two"', [("one", None), ("two", None)]),
        ('raise Fine(200, "no_error", "words")', []),
    ],
)
def test_how_codes_are_found(source: str, found: list[tuple[str, int | None]]) -> None:
    assert [pair for node in ast.walk(ast.parse(source)) for pair in _status_and_code(node)] == found
