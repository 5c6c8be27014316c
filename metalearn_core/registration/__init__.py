"""What a plugin may register, and what a registry keeps of it."""
