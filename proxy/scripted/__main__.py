"""``python -m proxy.scripted SCRIPT.yaml``: serve script files until interrupted."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence

from proxy.scripted import Script, ScriptedProvider, ScriptError, load_scripts


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, and return the exit status: 1 where a script or the address is no good."""
    parser = argparse.ArgumentParser(prog="python -m proxy.scripted", description=__doc__)
    parser.add_argument("script", nargs="+", help="a YAML file of scripts")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8799, help="0 takes a free one (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        scripts = [script for path in options.script for script in load_scripts(path)]
        asyncio.run(_serve(scripts, options.host, options.port))
    except (ScriptError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


async def _serve(scripts: Sequence[Script], host: str, port: int) -> None:
    provider = ScriptedProvider(scripts, keep_requests=0)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await provider.start(host, port)
    try:
        print(provider.url, flush=True)
        await stop.wait()
    finally:
        await provider.stop()


if __name__ == "__main__":
    sys.exit(main())
