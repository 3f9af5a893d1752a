"""Memory: live readings (`meter`, `host`), and where "auto" puts things (`placement`)."""
