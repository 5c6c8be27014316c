"""The machine and its system: cores, memory, file locks, user folders, terminal output, exit codes."""
