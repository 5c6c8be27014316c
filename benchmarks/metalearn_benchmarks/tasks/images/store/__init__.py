"""Prepared images on disk: decode them once, write them, read them and check them."""
