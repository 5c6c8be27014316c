"""What keeps numbers right where torch, a module or a second thread would make them wrong in silence."""
