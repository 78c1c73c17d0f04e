"""Connections to Redis: one server, the master that Sentinel names, or a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from proxy.stores.redis_url import Address


@dataclass(frozen=True, slots=True)
class Connected:
    """A client, and what else is to be closed with it."""

    client: Any
    """``Redis`` or ``RedisCluster``: what they share is not a type."""
    others: Sequence[Any] = ()
    cluster: bool = False

    async def begin(self) -> None:
        """To be awaited before each use: a cluster's nodes are found before anybody asks one of them.

        Commands that start while redis-py looks for the nodes lose their connections under them.
        """
        if self.cluster:
            await self.client.initialize()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The values under ``keys``, in their order."""
        client = self.client
        values: list[bytes | None] = await (client.mget_nonatomic if self.cluster else client.mget)(keys)
        return values

    async def put_many(self, values: Mapping[bytes, bytes], ttl_ms: int) -> None:
        """Keep each value for ``ttl_ms`` milliseconds."""
        async with self.client.pipeline(transaction=False) as pipeline:
            for key, value in values.items():
                pipeline.set(key, value, px=ttl_ms)
            await pipeline.execute()

    async def close(self) -> None:
        """Close every connection."""
        for client in (self.client, *self.others):
            await client.aclose()
        if self.cluster:  # which closes nothing while it looks for its nodes
            for nodes in ("nodes_cache", "startup_nodes"):
                await self.client.nodes_manager.aclose(nodes)


def connect(address: Address, timeout_s: float, max_connections: int) -> Connected:
    """A client that connects when it is first used, and sends nothing twice."""
    credentials: dict[str, Any] = {"username": address.username, "password": address.password}
    # Of several nodes one may hang: there has to be time left to try the next.
    common: dict[str, Any] = _tls(address) | {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s / (len(address.nodes) if address.kind != "single" else 1),
        # Protocol 2 has nothing but answers to questions: whatever else can be read is a closed connection.
        "protocol": 2,
    }
    match address.kind:
        case "single":
            ((host, port),) = address.nodes
            return Connected(
                Redis(host=host, port=port, db=address.database, retry=_once(), **credentials, **common)
            )
        case "sentinel":
            return _sentinel(address, credentials, common)
        case "cluster":
            nodes = [ClusterNode(host, port) for host, port in address.nodes]
            client = RedisCluster(
                startup_nodes=nodes, retry=_once(), max_connections=max_connections, **credentials, **common
            )
            return Connected(client, cluster=True)


def _sentinel(address: Address, credentials: dict[str, Any], common: dict[str, Any]) -> Connected:
    options = address.options
    sentinels: type[Any] = Sentinel  # which is not typed
    sentinel = sentinels(
        address.nodes,
        sentinel_kwargs={
            "username": options.get("sentinel_username"),
            "password": options.get("sentinel_password"),
            "retry": _once(),
            "socket_timeout": common["socket_connect_timeout"],
            **{name: value for name, value in common.items() if name != "socket_timeout"},
        },
    )
    master = sentinel.master_for(address.service, db=address.database, retry=_once(), **credentials, **common)
    return Connected(master, others=sentinel.sentinels)


def _once() -> Retry:
    return Retry(NoBackoff(), 0)


def _tls(address: Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    files = {name: path for name, path in address.options.items() if name.startswith("ssl_")}
    return {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **files}
