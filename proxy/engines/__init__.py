"""Rego engines behind the ``PolicyEngine`` port, and the policies that they are given."""
