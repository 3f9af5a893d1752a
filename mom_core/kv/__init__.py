"""Keys and values of a context: what is kept, on which tier, and how it moves."""
