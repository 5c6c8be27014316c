"""The address of a Ray cluster, and whether this machine may connect to it."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path

from metalearn_core import UsageError


def current_address() -> str:
    """Return the address that Ray finds for `auto`; `auto` itself where only Ray can find it."""
    given = os.environ.get("RAY_ADDRESS")
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108 Ray's own
    try:
        found = given or noted.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "auto"
    return found if re.fullmatch(r"[^\s/]+:\d+", found) else "auto"


def has_token() -> bool:
    """Return whether Ray finds a token. It writes one when it first starts a cluster by itself."""
    in_environment = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return in_environment or Path.home().joinpath(".ray", "auth_token").exists()


def is_only_on_loopback(target: str, given: str) -> bool:
    """Return whether a cluster can be reached on the loopback address only.

    Ray takes 127.0.0.1 for the machine's outward address, where such a cluster does not listen.

    Args:
        target: HOST:PORT of the cluster.
        given: The address as the user gave it, for the message.

    Raises:
        UsageError: Nothing listens there. Ray itself would try for a minute, and report in many lines.
    """
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as line:
            reached = line.getpeername()[0]
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {given}: nothing answers at {target} ({error}); start a cluster with `ray start --head`"
        ) from error
    if not ipaddress.ip_address(reached.partition("%")[0]).is_loopback:
        return False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address is the outward one
            outward = probe.getsockname()[0]
        socket.create_connection((outward, int(port)), timeout=5).close()
    except OSError:
        return True
    return False
