"""One file a guard. The order in which they are asked is declared in ``proxy.app``."""
