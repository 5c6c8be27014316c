"""Where a Ray cluster is, and whether this machine may enter it."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path

from metalearn_core import UsageError


def current_address() -> str:
    """The address that Ray would find for `auto`, as far as it can be known without Ray; else `auto`."""
    given = os.environ.get("RAY_ADDRESS")
    noted = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")  # noqa: S108 Ray's own
    try:
        found = given or noted.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "auto"
    return found if re.fullmatch(r"[^\s/]+:\d+", found) else "auto"


def has_token() -> bool:
    """Whether Ray would find a token: it writes one when it first starts a cluster by itself."""
    told = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return told or Path.home().joinpath(".ray", "auth_token").exists()


def is_only_on_loopback(target: str, told: str) -> bool:
    """Whether a cluster at HOST:PORT can be reached on the loopback address alone.

    Ray takes 127.0.0.1 for the machine's outward address, where such a cluster does not listen. Raises
    UsageError where nothing listens: Ray itself tries for a minute, and then speaks in many lines.
    """
    host, _, port = target.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as line:
            reached = line.getpeername()[0]
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--ray {told}: nothing answers at {target} ({error}); start a cluster with `ray start --head`"
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
