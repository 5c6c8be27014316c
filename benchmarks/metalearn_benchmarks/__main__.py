"""`python -m metalearn_benchmarks` is the command `metalearn`."""

from metalearn_benchmarks.cli.app import main

if __name__ == "__main__":
    main()
