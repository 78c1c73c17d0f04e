"""The conversations that every client has, and what must come of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from proxy.scripted import Script
from tests.http.harness import scripted


@dataclass(frozen=True)
class Case:
    """What the model does; the calls that the application runs for it, and its last text."""

    name: str
    turns: list[dict[str, Any]]
    executed: list[str]
    text: str

    @property
    def script(self) -> Script:
        """The turns, played to whoever asks for the model of the case's name."""
        return scripted(*self.turns, model=self.name)


CASES = [
    Case(name, **members)
    for name, members in yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text()).items()
]
