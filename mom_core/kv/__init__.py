"""Keys and values of a context: what is kept (`store`), where (`tiers`), how it moves
(`transfer`)."""
