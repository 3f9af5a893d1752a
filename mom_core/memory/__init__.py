"""Memory: live readings (`meter`)."""
