"""Runs in: the user's shell. `bunri demo [FOLDER]`: arguments in, the demonstration out."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import click


@click.command(name="demo")
@click.argument("folder", required=False, type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-out"),
    show_default=True,
    help="Folder for the thumbnails and the contact sheet.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=min(4, os.cpu_count() or 1),
    show_default=True,
    help="Confined decoders at a time.",
)
def command(folder: Path | None, out: Path, workers: int) -> int:
    """Decode the pictures of FOLDER with Pillow in confined workers.

    Hidden files, and folders in it, are passed over. Without FOLDER: photographs and documents of its own, damaged and
    hostile files among them. Then show every process as the kernel sees it, a capture as tcpdump would print it, and what
    an attacker in a decoder gets.

    \b
    Example:
      bunri demo ~/Pictures --out /tmp/thumbnails

    Exit status: 0 done (files that were refused are listed), 1 no file could be decoded or an attack succeeded.
    """
    if importlib.util.find_spec("PIL") is None:
        raise click.ClickException(
            "the demonstration decodes with Pillow. Install it with: pip install 'bunri[images]'"
        )
    from bunri.apps.demo.report import run

    return run(folder, out, workers)
