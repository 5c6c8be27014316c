"""Many outer steps in one call, without a way back to Python between them."""
