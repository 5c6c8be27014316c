"""The exit codes of the command: 0 where all went well, and these."""

EXIT_FAILED = 1
"""Some cell, claim, plugin or law failed; the rest went on."""
EXIT_USAGE = 2
"""Something that the user can mend, said in one line."""
EXIT_INTERRUPTED = 130
"""Ctrl-C."""
