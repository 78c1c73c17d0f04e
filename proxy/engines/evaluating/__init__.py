"""Who evaluates: in this process what is known to end soon, the rest in one that can be ended."""
