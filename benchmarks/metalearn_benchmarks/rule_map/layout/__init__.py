"""The layout of the map's picture: which rules share a block, which row a block is in, where it stands.

Special rules are low, general ones high. `blocks` groups rules and bundles links, `rows` assigns rows,
`ordering` orders every row and places what is in it, `routes` draws the ways of the links, `geometry` holds
the data types and the lengths, and `arrangement` calls them in turn. No module imports torch.
"""
