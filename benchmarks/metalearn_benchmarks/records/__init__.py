"""Records: what a run leaves on disk, how it is written, checked, archived and read. Imports no torch.

The folder of a run is `DIR/<experiment>/<setting>/<method>/<seed>`. It holds `experiment.toml`, what was
asked for, and `result.json`, what came out; a run has finished once the latter exists.

Read the files in this order:

1. `files` names the files of a record, and writes them whole or not at all.
2. `cell_file` holds what a run was asked for, and `record` what came out of it.
3. `quarantine` moves damaged files aside, and `metrics_log` keeps the log of validations.
4. `archive` packs many records into one compact file.
5. `reading` reads all records of a DIR, from folders and archives.
6. `frames` gives them as tables of pandas.
7. `compatibility` decides whether new runs may join those that a DIR already holds.
"""
