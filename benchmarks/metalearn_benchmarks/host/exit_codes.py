"""Exit codes of the command `metalearn`; 0 means that all went well."""

EXIT_FAILED = 1
"""Some cell, claim, plugin or law failed. The others were still run."""
EXIT_USAGE = 2
"""The user can mend it; one line says how."""
EXIT_INTERRUPTED = 130
"""Ctrl-C stopped the command."""
