"""Runs: cells are trained, tested and recorded, on this machine, under torchrun or on a Ray cluster.

A cell flows through these stages:

1. An experiment is read from TOML: `experiments/catalogue.py`, `find_experiment`.
2. The experiment is expanded into cells: `experiments/catalogue.py`, `cells`.
3. A cell is resolved, with every default written out: `resolution.py`. Its components, the family, the
   base-learner and the rule, are made: `components.py`.
4. The cells that have no record yet are collected, and planned as programs: `runner.py`. Seeds of a method
   may train together, as one program: `seed_groups.py`. One such group is a job.
5. A backend distributes the jobs: `backends/`. Each job locks its folders and reports as one: `job.py`.
6. The job is run: `training.py` obtains θ⁰ and φ, and `evaluation.py` tests the best state.
7. The result is assembled and recorded: `results/`, then `records/record.py`.
8. A report is made from all records of a DIR: the package `report`.

Read `resolution.py`, `components.py`, `evaluation.py` and `training.py` first: they are the experiment
itself. Then read `seed_groups.py`, `job.py` and `runner.py`, and last the rest:

- `interruption.py` handles Ctrl-C, and `progress.py` is what a display of progress must implement.
- `observers/` calls the observers that are installed, such as TensorBoard.
- `durations/` estimates how long an experiment takes.
- `recompute.py` runs the cell of a record again, and `export.py` makes an artifact of a run.
"""
