"""The doors to the outside: clients, providers, operators; and who asks."""
