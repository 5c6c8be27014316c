"""Plugins: how they are found and validated, the project of a new one, and what the harness itself brings."""
