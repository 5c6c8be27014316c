"""What a user hands in is looked at: modules, losses and what they return, and arguments of functions."""
