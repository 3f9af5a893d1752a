"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_MODEL = "smollm2-135m"

home_option = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where chats and prepared documents are stored. Default: MOM_HOME, or your data folder.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object and nothing else."
)
limit_option = click.option(
    "--limit", multiple=True, metavar="NAME=N", help="Raise a reading limit: pages=200000."
)
no_cache_option = click.option(
    "--no-cache", is_flag=True, help="Do not use or store texts and tokens on disk."
)
scratch_folder_option = click.option(
    "--scratch-folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the disk tier's files. Default: in your cache folder.",
)
