"""State turned into what the page paints: pure functions and small JSON objects."""
