"""`mom chat`, and `mom` alone: serves the page."""

from __future__ import annotations

from pathlib import Path

import click

from app.cli.common_options import DEFAULT_MODEL, home_option, limit_option, no_cache_option
from app.cli.engine_options import engine_options
from mom_core.config import EngineConfig


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Default: 7860, or the next free port.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Any but this machine's own needs a password.",
)
@click.option(
    "--password-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the page's password. Or set MOM_PASSWORD.",
)
@click.option(
    "--token", is_flag=True, help="On a shared machine: only the printed address opens the page."
)
@click.option("--model", default=DEFAULT_MODEL, show_default=True, help="See `mom ask --help`.")
@limit_option
@no_cache_option
@home_option
@click.option("--no-save", is_flag=True, help="Store neither chats nor prepared documents.")
@engine_options
def chat(
    port: int | None,
    host: str,
    password_file: Path | None,
    token: bool,
    model: str,
    limit: tuple[str, ...],
    no_cache: bool,
    home: Path | None,
    no_save: bool,
    config: EngineConfig,
) -> None:
    """Serve the page on this machine until interrupted."""
    from app.cli.access_options import access_from
    from app.documents import DiskCache, parse_limits
    from app.server.serve import serve

    access = access_from(host, password_file, uses_token=token)
    serve(
        port=port,
        model=model,
        config=config,
        limits=parse_limits(limit),
        cache=None if no_cache else DiskCache(),
        access=access,
        home=home,
        saves=not no_save,
    )
