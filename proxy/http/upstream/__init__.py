"""The providers, over HTTP/1.1 connections of our own.

From the bottom: ``answer`` reads what a connection says, without I/O; ``connection`` carries one request and
its answer at a time; ``pool`` opens and keeps the connections to one provider; ``heads`` writes what a
request says; ``reply`` is an answer for those who asked; ``client`` puts them together.
"""

from __future__ import annotations

from proxy.http.upstream.client import HttpUpstream
from proxy.http.upstream.endpoint import Endpoint
from proxy.http.upstream.reply import HttpReply

__all__ = ["Endpoint", "HttpReply", "HttpUpstream"]
