"""Office documents and e-books to text."""
