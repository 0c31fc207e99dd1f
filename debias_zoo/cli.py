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
from .cli_export import export
from .cli_names import NamesOf, take_files, take_plugins
from .cli_new import new
from .cli_probe import probe
from .cli_report import report
from .cli_runs import runs
from .cli_shared import data_root, mendable, training_options
from .cli_tune import tune
from .errors import ZooError
from .interrupts import INTERRUPTED


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="debias-zoo")
def cli() -> None:
    """Compare debiasing methods for image classifiers under one protocol.

    \b
    debias-zoo run --methods lnl,blindeye,rebias --dataset cmnist
    debias-zoo report runs/ --format latex -o table.tex
    debias-zoo new method my_method && debias-zoo check my_method.py

    Exit codes: 0 all went well; 1 a trial or a check failed; 2 something was asked for that cannot be done;
    130 interrupted; 143 terminated.
    """  # noqa: D301  (click reads the escape)


@cli.command()
@click.argument("grid", required=False, type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--methods", type=NamesOf("method"), help="Names, separated by commas; `debias-zoo list methods` shows them."
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    type=NamesOf("dataset", several=False),
    help="NAME[:KEY=VALUE,...]; repeatable. A list of values is a sweep: cmnist:variance=0.02,0.03.",
)
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    type=NamesOf("backbone", several=False),
    help="A timm model instead of the recipe's; repeatable; `debias-zoo list backbones`.",
)
@click.option(
    "--set", "sets", multiple=True, metavar="METHOD.KEY=JSON", help="A setting, or METHOD.STAGE.KEY / METHOD.train.KEY."
)
@click.option(
    "--normalize",
    default="",
    metavar="NAME",
    help="Pixels before the backbone, instead of the recipe's: none, half, bytes, cifar or imagenet.",
)
@click.option("--threads", default="auto", show_default=True, help="Threads of each trial, or auto.")
@click.option("--per-gpu", type=click.IntRange(1), help="Trials that share a GPU.  [default: 1]")
@click.option(
    "--executor",
    type=NamesOf("executor", several=False),
    default="local",
    show_default=True,
    help="Where trials run: local, ray, slurm or a plugin.",
)
@click.option("--address", default="", metavar="HOST:PORT", help="The Ray cluster; none: Ray on this machine alone.")
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="For Slurm: partition, time, mem_gb; repeatable.")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings that `debias-zoo tune` chose, in the place of the recipe's; repeatable.",
)
@training_options
@click.option(
    "--track",
    multiple=True,
    type=NamesOf("tracker", several=False),
    metavar="NAME",
    help="Show the curves there too: tensorboard; repeatable.",
)
@click.option(
    "--compile",
    "compiling",
    type=click.Choice(["off", "on", "auto"]),
    default="off",
    show_default=True,
    help="Networks through torch.compile; auto: what is measured here to be fastest. Numbers differ in last digits.",
)
@click.option(
    "--stack-seeds",
    "stack",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Train so many seeds as one program where the method allows it. Numbers differ in last digits.",
)
@click.option("--dry-run", is_flag=True, help="Print the trials, their number and the expected time; train nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: a list of objects.")
@click.pass_context
@mendable
def run(context: click.Context, grid: Path | None, **options: Any) -> None:
    """Train and compare methods; what is finished is not done again, what was killed is resumed.

    GRID is a YAML file with what the options below say; an option that is given beside it wins.
    """
    from .driver import drive

    if grid is not None:
        from .gridfile import read_grid

        default = click.core.ParameterSource.DEFAULT
        of_file = read_grid(grid)
        given = {key for key in options if context.get_parameter_source(key) is not default}
        if given & {"seeds", "seed_list"}:
            given |= {"seeds", "seed_list"}
        options |= {key: value for key, value in of_file.items() if key not in given}
    if not options["methods"] or not options["datasets"]:
        raise ZooError("say what to run: --methods A,B --dataset NAME, or a grid file with both")
    raise SystemExit(drive(**options))


@cli.command(name="list")
@click.argument("what", type=click.Choice(["methods", "datasets", "backbones", "executors", "trackers", "formats"]))
@click.option("--json", "as_json", is_flag=True, help="A list of objects.")
@mendable
def list_(what: str, as_json: bool) -> None:
    """What there is, and where each comes from."""
    from .listing import rows

    found = rows(what)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    from .listing import text

    click.echo(text(what, found))


@cli.command()
@click.argument("name", type=NamesOf("method", "dataset", "backbone", several=False))
@click.option("--json", "as_json", is_flag=True, help="An object.")
@mendable
def show(name: str, as_json: bool) -> None:
    """All about one method, data set or backbone."""
    from .listing import details, details_text

    found = details(name)
    click.echo(json.dumps(found, indent=1) if as_json else details_text(found))


@cli.command()
@click.argument("name", metavar="NAME|FILE.py", type=NamesOf("method", "dataset", several=False, files=True))
@data_root
@click.option("--json", "as_json", is_flag=True, help="A list of verdicts.")
@click.pass_context
@mendable
def check(context: click.Context, name: str, root: Path | None, as_json: bool) -> None:
    """Prove that a method or a data set keeps its contract.

    NAME is registered, NAME:KEY=VALUE,... a data set with parameters; of a FILE.py all are checked that it defines.
    """
    if name.endswith(".py"):
        take_files(context, [Path(name)])
    from .checking import check_named, verdict_text

    verdicts = check_named(name, root)
    if as_json:
        click.echo(json.dumps(verdicts, indent=1))
    else:
        click.echo(verdict_text(name, verdicts))
    raise SystemExit(0 if all(verdict["status"] in {"passed", "expected"} for verdict in verdicts) else 1)


cli.add_command(data)
cli.add_command(explain)
cli.add_command(export)
cli.add_command(new)
cli.add_command(probe)
cli.add_command(report)
cli.add_command(runs)
cli.add_command(tune)
take_plugins(cli)


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
