"""docs/deployment.md: what it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy import __version__

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "deployment.md").read_text()
COMMANDS = "\n".join(re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\bdeploy/[\w./-]+", COMMANDS))))
def test_commands_name_files_that_exist(path: str) -> None:
    # kubectl has a resource deploy/NAME too: here only placeholders are written so.
    assert path == "deploy/YOUR_APP" or (ROOT / path).exists()


def test_every_manifest_is_applied() -> None:
    for file in (ROOT / "deploy" / "kubernetes").glob("*/*.yaml"):
        if file.parent.name in {"policies", "tools"}:
            continue
        folder = f"deploy/kubernetes/{file.parent.name}"
        assert f"{folder}/{file.name}" in COMMANDS or re.search(rf"-f {folder}(?!/)", COMMANDS), file


def test_the_image_has_the_codes_version() -> None:
    assert set(re.findall(r"/callgate:(\S+?)[`\s]", GUIDE)) == {__version__}
