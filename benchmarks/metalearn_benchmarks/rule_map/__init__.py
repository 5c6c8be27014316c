"""The map of what update rules can express: put together, checked, in words, and drawn.

`installed` joins the shipped map with what plugins place on it, and checks its claims; `text` writes it for
people and programs; `layout` arranges it, and `drawing` and `matrix` draw it on a `canvas`.
"""
