"""Experiments: what is run, read from TOML and expanded into one cell for each run. Imports no torch.

An experiment trains methods on a family of tasks. Its settings, its methods and its seeds span a grid, and
each point of the grid is a cell: one run, with everything that its numbers depend on.

Read the files in this order:

1. `method` and `experiment` hold the classes that a TOML file is parsed into, `cell` the result.
2. `toml_tables` parses the tables strictly and reports the first wrong key.
3. `axes` reads what is varied, and names the points of the grid.
4. `inheritance` resolves `extends`, of experiments and of methods.
5. `conditions` applies `[[where]]`: changes that hold in some settings only.
6. `settings` and `rows` expand the axes into settings and into rows of the results table.
7. `authors_protocol` rewrites a method for `--protocol authors`.
8. `catalogue` finds experiments and methods and turns an experiment into its cells.

`methods/` and `shipped/` hold the TOML files that come with the package.
"""
