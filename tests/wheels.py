"""Build the wheels and install them, with what they declare and nothing else, where this runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLUGINS = (
    *("gradient_descent", "lstm", "feed_forward"),
    *("alfa", "lslr", "lstm_optimizer", "meta_curvature", "mlp_optimizer"),
)
SOURCES = (".", *(f"plugins/{name}" for name in PLUGINS), "benchmarks")


def main(checkout: Path, scratch: Path) -> None:
    wheels = scratch / "wheels"
    pip = (sys.executable, "-m", "pip")
    sources = [str(checkout / source) for source in SOURCES]
    subprocess.check_call([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), *sources])
    built = sorted(map(str, wheels.glob("*.whl")))
    assert len(built) == len(SOURCES), built
    wanted = [f"{wheel}[testing]" if "metalearn_core" in wheel else wheel for wheel in built]
    constraints = str(checkout / "constraints.txt")
    subprocess.check_call([*pip, "install", "--quiet", "--force-reinstall", "-c", constraints, *wanted])
    where = "import metalearn_core; print(metalearn_core.__file__)"
    found = subprocess.check_output([sys.executable, "-c", where], text=True, cwd=scratch).strip()
    assert Path(found).is_relative_to(sys.prefix), f"imported from {found}, not from the wheel"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
