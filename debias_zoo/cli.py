"""The command line. Only click is imported here; commands import what they need, so that ``--help`` is quick."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_data import data
from .cli_explain import explain
from .cli_probe import probe
from .cli_report import report
from .cli_shared import data_root, mendable

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="debias-zoo")
def cli() -> None:
    """Compare debiasing methods for image classifiers under one protocol.

    \b
    debias-zoo run --methods lnl,blindeye,rebias --dataset cmnist
    debias-zoo report runs/ --format latex -o table.tex

    Exit codes: 0 all went well; 1 a trial or a check failed; 2 something was asked for that cannot be done;
    130 interrupted; 143 terminated.
    """  # noqa: D301  (click reads the escape)


@cli.command()
@click.option("--methods", required=True, help="Names, separated by commas; `debias-zoo list methods` shows them.")
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    required=True,
    help="NAME[:KEY=VALUE,...]; repeatable. A list of values is a sweep: cmnist:variance=0.02,0.03.",
)
@click.option(
    "--seeds", type=click.IntRange(1), help="How many seeds: 0 ... N-1. Neither this nor --seed: seed 0 alone."
)
@click.option("--seed", "seed_list", help="Which seeds, separated by commas.")
@click.option("--backbone", help="A timm model instead of the recipe's; `debias-zoo list backbones`.")
@click.option(
    "--protocol",
    type=click.Choice(["quick", "standard", "paper"]),
    default="standard",
    show_default=True,
    help="The budget: a look, an equal one for all methods, or each paper's own.",
)
@click.option(
    "--set", "sets", multiple=True, metavar="METHOD.KEY=JSON", help="A setting, or METHOD.STAGE.KEY / METHOD.train.KEY."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:i] or mps.")
@click.option("--jobs", default="auto", show_default=True, help="Trials side by side, or auto.")
@click.option("--threads", default="auto", show_default=True, help="Threads of each trial, or auto.")
@click.option("--per-gpu", type=click.IntRange(1), help="Trials that share a GPU.  [default: 1]")
@click.option("--executor", default="local", show_default=True, help="Where trials run: local, ray, slurm or a plugin.")
@click.option("--address", default="", metavar="HOST:PORT", help="The Ray cluster; none: Ray on this machine alone.")
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="For Slurm: partition, time, mem_gb; repeatable.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("runs"), show_default=True)
@data_root
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A state dict the backbone starts from, all but its classifier.",
)
@click.option("--pretrained", is_flag=True, help="The backbone starts from timm's pretrained weights.")
@click.option("--skip-corrupt", is_flag=True, help="Leave out images that cannot be decoded, instead of stopping.")
@click.option("--track", multiple=True, metavar="NAME", help="Show the curves there too: tensorboard; repeatable.")
@mendable
def run(**options: Any) -> None:
    """Train and compare methods; what is finished is not done again, what was killed is resumed."""
    from .driver import drive

    raise SystemExit(drive(**options))


@cli.command(name="list")
@click.argument("what", type=click.Choice(["methods", "datasets", "backbones"]))
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@mendable
def list_(what: str, as_json: bool) -> None:
    """What there is: methods, datasets or backbones."""
    from .listing import rows

    found = rows(what)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    from .listing import text

    click.echo(text(what, found))


@cli.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="An object.")
@mendable
def show(name: str, as_json: bool) -> None:
    """All about one method, data set or backbone."""
    from .listing import details, details_text

    found = details(name)
    click.echo(json.dumps(found, indent=1) if as_json else details_text(found))


@cli.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="A list of verdicts.")
@mendable
def check(name: str, as_json: bool) -> None:
    """Prove that a method keeps the contract: a registered NAME, or a FILE.py that defines one."""
    from .checking import check_named, verdict_text

    verdicts = check_named(name)
    if as_json:
        click.echo(json.dumps(verdicts, indent=1))
    else:
        click.echo(verdict_text(name, verdicts))
    raise SystemExit(0 if all(verdict["status"] in {"passed", "expected"} for verdict in verdicts) else 1)


cli.add_command(data)
cli.add_command(explain)
cli.add_command(probe)
cli.add_command(report)


def main() -> None:
    """The entry point of ``debias-zoo``."""
    try:
        code = cli.main(prog_name="debias-zoo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):  # click makes the one of the other
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    sys.exit(code)
