"""Readers of the forms in which people have an image dataset: folders, CSV lists, pickles, CUB."""
