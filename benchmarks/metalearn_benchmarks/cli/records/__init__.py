"""The commands that turn records into other files: `metalearn archive` and `metalearn records`."""
