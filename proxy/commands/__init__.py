"""The command line's groups: one module a group, each with its typer application."""
