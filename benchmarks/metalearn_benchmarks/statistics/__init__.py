"""Headlines, means, medians, intervals, bootstrap, and paired comparisons of the scores in records.

`summaries` describes one method, `comparisons` holds two against each other on the same test tasks, and
`growth` measures how the spread over seeds depends on the number T of inner steps.
"""
