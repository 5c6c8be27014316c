"""The durations of experiments: how long a run will take on this machine.

`estimates` keeps timings of programs and computes the time of an experiment from them; it imports no torch.
`measuring` takes the timings, by running each program for a few outer steps.
"""
