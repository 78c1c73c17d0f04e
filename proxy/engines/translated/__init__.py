"""Policies translated to Python: what decides most calls, and knows when it does not know."""
