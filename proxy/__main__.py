"""``python -m proxy`` is ``callgate``."""

from proxy.cli import main

main()
