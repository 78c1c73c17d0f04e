"""An OPA server as the policy engine, through opa-python-client: a fleet's own policies, bundles and logs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from opa_client import AsyncOpaClient

from proxy.ports import Unavailable

log = logging.getLogger("callgate.policies")

_RULE = "decision"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class OpaEngine:
    """The ``PolicyEngine`` port over OPA's REST API. What it cannot decide in time is not decided."""

    def __init__(
        self, url: str, token: str | None = None, timeout_s: float = 1.0, refresh_s: float = 10.0
    ) -> None:
        """``refresh_s`` is how often the server is asked which policies it serves."""
        parts = urlsplit(url)
        self.revision = ""
        self.fault: str | None = "the OPA server has not been asked yet"
        """Why the policies of the server are not known; None while they are."""
        self._timeout_s, self._refresh_s = timeout_s, refresh_s
        self._packages: frozenset[str] = frozenset()
        self._client = AsyncOpaClient(
            host=parts.hostname or "localhost",
            port=parts.port or _DEFAULT_PORTS[parts.scheme],
            ssl=parts.scheme == "https",
            token=token,
            # A decision changes nothing, so it may be asked for again when a kept connection was closed.
            retries=1,
            timeout=timeout_s,
        )

    async def start(self) -> None:
        """Open the connection pool and ask once; a server that is not there yet is no error."""
        await self._client.__aenter__()
        await self.refresh()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close_connection()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep knowing what the server serves, until ``stop``."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._refresh_s):
                    await stop.wait()
            except TimeoutError:
                await self.refresh()

    def missing(self) -> list[str]:
        """Nothing: without it, Callgate serves and closes what depends on it."""
        return []

    def notes(self) -> list[str]:
        """What is wrong, for readiness to tell."""
        return [f"policies: {self.fault}"] if self.fault else []

    async def refresh(self) -> None:
        """Ask which packages decide, and for the digest of all policies."""
        try:
            async with asyncio.timeout(self._timeout_s * 5):
                packages, revision = await self._served()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError) as exc:
            self.fault = f"the OPA server does not tell its policies ({type(exc).__name__})"
            log.error("%s; decisions are asked for as before", self.fault)
            return
        if revision != self.revision:
            log.info("the OPA server serves policies %s", revision[:16])
        self._packages, self.revision, self.fault = packages, revision, None

    async def _served(self) -> tuple[frozenset[str], str]:
        info = await self._client.get_policies_info()
        digest = hashlib.sha256()
        packages = set()
        for policy_id in sorted(info):
            policy = await self._client.get_policy(policy_id)
            digest.update(f"{policy_id}\0{policy['result']['raw']}\0".encode())
            path = info[policy_id]["path"].partition("/data/")[2]
            if any(rule.endswith(f"/{_RULE}") for rule in info[policy_id]["rules"]):
                packages.add(path.replace("/", "."))
        return frozenset(packages), digest.hexdigest()

    def defines(self, package: str) -> bool:
        """Whether the server has this decision; while that is not known, it is asked."""
        return self.fault is not None or package in self._packages

    def reads(self, package: str) -> frozenset[str] | None:
        """Not known of another system's policies: no decision is kept."""
        return None

    async def decide(self, package: str, input: Mapping[str, Any]) -> Any:
        """The value of ``data.<package>.decision``, or None where it is undefined; raises ``Unavailable``."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.query_rule(dict(input), package, _RULE)
        except TimeoutError:
            raise Unavailable(f"the OPA server did not decide within {self._timeout_s:g} s") from None
        except aiohttp.ClientResponseError as exc:
            raise Unavailable(f"the OPA server answered {exc.status}") from None
        except (aiohttp.ClientError, OSError, ValueError, TypeError) as exc:
            raise Unavailable(f"the OPA server cannot be asked ({type(exc).__name__})") from None
        return answer.get("result")
