"""`python -m metalearn_benchmarks` is the command `metalearn`."""

from metalearn_benchmarks.cli import main

if __name__ == "__main__":
    main()
