"""The command line: `mom` and its commands."""
