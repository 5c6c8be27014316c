"""The result of a run: what its `result.json` holds.

Read `result` first, which assembles it. `rule_response` measures what the trained rule does, and
`provenance` collects where the numbers come from.
"""
