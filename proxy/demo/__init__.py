"""``callgate demo``: Callgate on its embedded defaults before a scripted provider, with a real client."""

from proxy.demo.runner import run_demo

__all__ = ["run_demo"]
