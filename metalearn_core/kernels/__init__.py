"""What makes the engine fast, behind the same functions: nothing in here changes what is computed."""
