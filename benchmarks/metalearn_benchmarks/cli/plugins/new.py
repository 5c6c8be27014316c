"""`metalearn plugins new`: begin a plugin project."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from metalearn_benchmarks.cli.support.options import RenamedOption, examples
from metalearn_benchmarks.host.terminal import echo


@click.command("new", epilog=examples("metalearn plugins new my-rule --out plugins"))
@click.argument("name")
@click.option(
    "--out",
    "--to",
    "to",
    cls=RenamedOption,
    type=click.Path(path_type=Path),
    default=".",
    help="Where it goes. [default: here]",
)
@click.option("--author", help="Whose it is, for the licence. [default: as git or the system knows you]")
def new_command(name: str, to: Path, author: str | None) -> None:
    """Begin a plugin of your own: the project metalearn-NAME with a rule, its tests and its packaging."""
    from metalearn_benchmarks.plugins.project import write_project

    folder = write_project(name, to, author or _user())
    here, with_tests = shlex.quote(str(folder)), shlex.quote(f"{folder}[test]")
    echo(
        f"{folder}: write your equation into it, then\n"
        f"  pip install -e {with_tests} && pytest {here} && metalearn plugins check {name}"
    )


def _user() -> str:
    """The name that git has for the user, or else the system."""
    import getpass
    import subprocess

    try:
        result = subprocess.run(  # the user's own git
            ["git", "config", "user.name"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return getpass.getuser()
    return result.stdout.strip() or getpass.getuser()
