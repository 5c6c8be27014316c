"""Build the wheels and install them, with what they declare and nothing else, then with what tests need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLUGINS = (
    *("gradient_descent", "lstm", "feed_forward"),
    *("alfa", "lslr", "lstm_optimizer", "meta_curvature", "mlp_optimizer", "partial"),
    *("cavia", "ml3", "newton_cg", "proto_maml"),
    *("evolution", "hessian_free", "implicit", "reptile"),
)
SOURCES = (".", *(f"plugins/{name}" for name in PLUGINS), "benchmarks")


def main(checkout: Path, scratch: Path) -> None:
    wheels = scratch / "wheels"
    pip = (sys.executable, "-m", "pip")
    sources = [str(checkout / source) for source in SOURCES]
    subprocess.check_call([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), *sources])
    built = sorted(map(str, wheels.glob("*.whl")))
    assert len(built) == len(SOURCES), built
    install = (*pip, "install", "--quiet", "-c", str(checkout / "constraints.txt"))
    # they may be here from the time before
    subprocess.check_call([*pip, "uninstall", "--quiet", "--yes", "hypothesis", "metalearn-stranger"])
    subprocess.check_call([*install, "--force-reinstall", *built])
    for words in (["plugins", "list"], ["map", "lslr"]):
        subprocess.check_call([sys.executable, "-m", "metalearn_benchmarks", *words], cwd=scratch)
    (core,) = (wheel for wheel in built if "metalearn_core" in wheel)
    subprocess.check_call([*install, f"{core}[testing]"])
    where = "import metalearn_core; print(metalearn_core.__file__)"
    found = subprocess.check_output([sys.executable, "-c", where], text=True, cwd=scratch).strip()
    assert Path(found).is_relative_to(sys.prefix), f"imported from {found}, not from the wheel"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
