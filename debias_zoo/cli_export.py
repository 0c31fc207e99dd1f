"""``debias-zoo export``: a finished trial as a folder that predicts elsewhere. It imports what it needs."""

from __future__ import annotations

from pathlib import Path

import click

from .cli_shared import data_root, mendable


@click.command()
@click.argument("run", metavar="TRIAL")
@click.argument("target", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="The store in which the trial lies.",
)
@data_root
@click.option("--onnx", is_flag=True, help="Also write model.onnx, checked against torch; needs the extra `onnx`.")
@click.option("--license", "license_", default="", metavar="ID", help="Of the model, as the hub has it, such as mit.")
@mendable
def export(run: str, target: Path, out: Path, root: Path | None, onnx: bool, license_: str) -> None:
    """Write the network of a finished trial into FOLDER: safetensors, config and a model card.

    A TRIAL is named as for `debias-zoo runs`: an identity or its first digits, a folder, METHOD, or DATASET/METHOD.
    In Python, debias_zoo.load(FOLDER) predicts.
    """
    from .exporting import export as exported

    exported(run, target, out=out, data_root=root, onnx=onnx, license=license_, say=click.echo)
