"""Callgate: a policy-enforcing, OpenAI-compatible reverse proxy for LLM tool calls.

The rooms, from the bottom up (imports only point down; see ARCHITECTURE.md):

- ``model``, ``verdicts``, ``record``: the words everything else is written in
- ``ports``, ``wire``, ``tools``: what the core needs, how bytes become turns, which tools there are
- ``guards``, ``pipeline``, ``exchange``: who objects, the one fail-closed seam, one client request
- ``http``, ``engines``, ``stores``, ``sinks``: the outside, behind the ports
- ``config``, ``app``, ``cli``: settings, the composition root, the command line
"""

__version__ = "0.1.0"
