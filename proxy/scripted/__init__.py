"""A provider that plays scripts: for the demo, for tests, and for trying out one's own set-up."""

from proxy.scripted.expect import Expect
from proxy.scripted.received import ReceivedRequest
from proxy.scripted.script import (
    Script,
    ScriptedCall,
    ScriptedChoice,
    ScriptedTurn,
    ScriptedUsage,
    ScriptError,
    load_scripts,
)
from proxy.scripted.server import ScriptedProvider

__all__ = [
    "Expect",
    "ReceivedRequest",
    "Script",
    "ScriptError",
    "ScriptedCall",
    "ScriptedChoice",
    "ScriptedProvider",
    "ScriptedTurn",
    "ScriptedUsage",
    "load_scripts",
]
