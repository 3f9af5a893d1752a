"""Keys and values of a context: how they are stored, on which tier, and how they move."""
