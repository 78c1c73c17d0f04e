"""Policies that change while Callgate serves: followed, put together, swapped whole."""
