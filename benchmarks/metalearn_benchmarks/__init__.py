"""The harness: methods and experiments as data, runs, records and reports."""
