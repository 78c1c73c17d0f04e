"""The example on the page about stored answers, run as it stands."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from tests.http.conftest import Serve
from tests.http.harness import scripted

PAGE = Path(__file__).parents[2] / "docs" / "stored.md"


async def test_the_example_resumes_where_it_was_left(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    callgate = await serve(scripted({"text": "Hello there, world."}, model="gpt-4.1"), stores=True)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "http://127.0.0.1:8787/v1" in example
    names: dict[str, Any] = {}
    code = compile(example.replace("http://127.0.0.1:8787/v1", callgate.url), str(PAGE), "exec")
    await asyncio.to_thread(exec, code, names)
    await asyncio.to_thread(names["client"].close)
    names["stream"].close()
    assert capsys.readouterr().out == "Hello there, world."
