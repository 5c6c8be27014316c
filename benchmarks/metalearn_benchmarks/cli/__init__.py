"""The command `metalearn`: a file for each command, a folder for each group of commands."""

__all__ = ["main"]
