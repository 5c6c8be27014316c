"""A Ray cluster of several nodes on 127.0.0.1, for tests: `python raylets.py FOLDER NODES`.

Says its address and its raylets' process ids in a line of JSON, and ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys

# no reports to anybody, and 127.0.0.1 is an address like others
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

from ray.cluster_utils import Cluster


def main(folder: str, nodes: int) -> None:
    options = {
        "node_ip_address": "127.0.0.1", "num_cpus": 1, "temp_dir": f"{folder}/ray", "memory": 4 << 30,
        "include_dashboard": False, "include_log_monitor": False,
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args=options)
    others = [cluster.add_node(**options) for _ in range(nodes - 1)]
    raylets = [node.all_processes["raylet"][0].process.pid for node in (cluster.head_node, *others)]
    sys.stdout.write(f"{json.dumps({'address': cluster.address, 'raylets': raylets})}\n")
    sys.stdout.flush()
    sys.stdin.read()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
