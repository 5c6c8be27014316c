"""The peers that are timed: each computes the meta-gradient of the same work in its own documented way.

A peer that needs another package imports it when it is made, and raises ImportError where that is missing.
"""
