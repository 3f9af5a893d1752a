"""`python -m app.cli` is `mom`."""

from app.cli.main import main

main()
