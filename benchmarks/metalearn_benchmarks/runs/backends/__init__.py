"""Backends: where the jobs of an experiment run.

`local` runs them in worker processes of this machine. `torchrun` shares each run between the processes that
torchrun started. `ray` runs them on a Ray cluster. All of them run a job by `runs.job.run_job`.
"""
