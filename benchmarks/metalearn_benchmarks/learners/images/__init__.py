"""Image classifiers, and the layers that make them fast for many tasks at once."""
