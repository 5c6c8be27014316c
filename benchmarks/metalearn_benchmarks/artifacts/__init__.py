"""Artifacts: trained rules with their initialisations, written to files and loaded again."""
