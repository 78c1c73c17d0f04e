"""Several processes that serve one port, started, watched and stopped as one."""

from __future__ import annotations

from proxy.workers.process import serve_one
from proxy.workers.supervisor import Supervisor

__all__ = ["Supervisor", "serve_one"]
