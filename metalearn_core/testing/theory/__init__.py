"""Claims that one update rule contains another, how they are checked, and the map that they make."""
