"""``debias-zoo report``: tables, ledgers, figures and pages of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .cli_names import Format, NamesOf
from .cli_shared import mendable, names
from .errors import ZooError
from .reports.formats import LAYOUTS, RULE_NAMES


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False))
@click.option("--format", "form", type=Format(), default="rich", show_default=True, help="`debias-zoo list formats`.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there, not to the terminal."
)
@click.option("--standalone", is_flag=True, help="LaTeX: a whole document instead of a fragment.")
@click.option("--methods", type=NamesOf("method"), default="", help="Only these, in this order.")
@click.option("--split", help="The split whose numbers are shown.  [default: test]")
@click.option("--metrics", default="", help="Which columns; or, where one metric is shown, which.")
@click.option(
    "--select",
    "rules",
    default="last",
    show_default=True,
    help=f"Which epoch is reported: {', '.join(RULE_NAMES)}. Several, separated by commas, are compared.",
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="One table a metric, turned.")
@click.option("--ledger", is_flag=True, help="Published numbers beside ours, with verdict and command.")
@click.option("--cost", is_flag=True, help="Seconds, memory, parameters and passes.")
@click.option("--intervals", is_flag=True, help="Bootstrap intervals over test images and seeds.")
@click.option("--groups", is_flag=True, help="The accuracy of every group, by label and bias.")
@click.option(
    "--compare",
    is_flag=False,
    flag_value="",
    metavar="[METHOD]",
    help="Paired differences from a method, with tests where there are enough pairs.  [default: erm]",
)
@click.option("--curve", default="", metavar="PARAMETER", help="A metric against a parameter of the data.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --curve, --cost or --compare: also draw it there (.svg, .pdf or .png).",
)
@mendable
def report(
    runs: Path,
    form: str,
    output: Path | None,
    standalone: bool,
    methods: str,
    split: str | None,
    metrics: str,
    rules: str,
    layout: str | None,
    ledger: bool,
    cost: bool,
    intervals: bool,
    groups: bool,
    compare: str | None,
    curve: str,
    figure: Path | None,
) -> None:
    """A table of finished runs: mean ± std over seeds; or what else is asked of them."""
    from .metrics import METRICS
    from .registry import entries, load_format
    from .reports.report import Asked, make_report
    from .store import read_finished

    chosen = load_format(form)
    if standalone and not chosen.standalone:
        able = [name for name, found in entries("format").items() if found.facts.get("standalone")]
        raise ZooError(f"--standalone goes with --format {' or '.join(able)}")
    if figure is not None and not (curve or cost or compare is not None):
        raise ZooError("--figure draws what --curve, --cost or --compare asks for: give one of them")
    if figure is not None:
        from .reports.drawing import drawn_form

        drawn_form(figure)
    found, problems = read_finished(runs)
    asked = Asked(
        methods=names(methods),
        split=split,
        metrics=names(metrics) or METRICS,
        rules=names(rules),
        layout=layout or "",
        ledger=ledger,
        cost=cost,
        intervals=intervals,
        groups=groups,
        compare=compare,
        curve=curve,
    )
    made = make_report(found, problems, asked)
    if form == "rich" and output is None:
        _print(made)
    else:
        _write(chosen().report(made, found, problems, asked, runs, standalone), output)
    if chosen.for_programs:
        for problem in made.problems:
            click.echo(f"not in the table: {problem}", err=True)
    if figure is not None:
        from .reports.figures import draw_report

        draw_report(made, asked, figure)


def _print(made: Any) -> None:
    from rich.console import Console

    from .reports.render_sheets import to_rich
    from .reports.terminal import render_rich

    Console().print(to_rich(made.sheets) if made.sheets else render_rich(made.table))


def _write(text: str, output: Path | None) -> None:
    from .writing import cannot_write, write_text

    if output is None:
        click.echo(text, nl=not text.endswith("\n"))
    elif output.exists() and not output.is_file():  # a device or a pipe
        try:
            output.write_text(text)
        except OSError as error:
            raise cannot_write(output, error) from error
    else:
        write_text(output.resolve(), text)
