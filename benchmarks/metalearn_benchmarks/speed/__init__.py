"""Benchmarks of meta-gradients and outer steps: this engine beside its peers, on the same work, in one run.

`comparison` holds what `metalearn speed` asks for, `settings` the grid of settings, `work` what is computed,
`peers` who computes it, `measure` the clock, and `timing` the results.
"""
