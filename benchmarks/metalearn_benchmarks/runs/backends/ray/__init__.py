"""Jobs on a Ray cluster. Ray is an optional dependency.

Read `cluster` first: it connects to the cluster and runs the jobs there. `address` finds a cluster,
`running_jobs` follows the submitted jobs, `worker` runs one on a node, and `mailbox` carries the messages
between the command and its workers.
"""
