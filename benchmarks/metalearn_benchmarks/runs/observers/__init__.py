"""Observers of runs: installed trackers and loggers, which receive the events of every run.

Read `dispatch` first: it says what an observer is, and calls observers so that none can harm a run.
`shipped` holds the observers that come with the package: TensorBoard, and JSON lines.
"""
