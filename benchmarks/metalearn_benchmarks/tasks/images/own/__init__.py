"""Images of a user's own: read from the forms that people have, split by class, and prepared.

Read `labelled` first: what every reader gives. `reading` chooses a reader by what is there; `folders`,
`tables`, `arrays` and `arrow` are the readers. `splitting` decides which class is in which split, and
`preparation` checks the images and writes the store.
"""
