"""Candidates: policies that are asked beside those in force, and never obeyed."""
