"""``debias-zoo probe``: what is left of the bias in trained features. As in ``cli.py``, it imports what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .cli_names import Format, NamesOf
from .cli_shared import data_root, mendable, names
from .errors import ZooError

if TYPE_CHECKING:
    from .store import Run


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False))
@data_root
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:i] or mps.")
@click.option("--limit", type=click.IntRange(50), default=2000, show_default=True, help="Images to probe, at most.")
@click.option("--methods", type=NamesOf("method"), help="Only these.")
@click.option("--again", is_flag=True, help="Probe what has been probed before, too.")
@click.option("--format", "form", type=Format(sheets=True), default="rich", show_default=True)
@click.option(
    "--figure", type=click.Path(path_type=Path, dir_okay=False), help="Draw it, layer by layer (.svg, .pdf or .png)."
)
@mendable
def probe(
    runs: Path,
    root: Path | None,
    device: str,
    limit: int,
    methods: str | None,
    again: bool,
    form: str,
    figure: Path | None,
) -> None:
    """Read bias and label in the frozen features of finished runs: bias leakage, layer by layer.

    Fresh linear probes at every tap of the network that predicts and at its embedding, on images whose bias does not
    follow from the label. What is found lies in each run's probe.json; what has been probed is not probed again.
    """
    from .reports.drawing import drawn_form
    from .store import read_runs

    if figure is not None:
        drawn_form(figure)
    found, problems = read_runs(runs)
    if asked := names(methods or ""):
        found = [run for run in found if run.result.trial.method in asked]
    there = [run for run in found if (run.path / "model.safetensors").exists()]
    if not there:
        without = f" ({len(found)} have no model.safetensors)" if found else ""
        raise ZooError(f"no finished trial with its network under {runs}{without}")
    problems += [f"not probed, no model.safetensors: {run.path}" for run in found if run not in there]
    failed = _probed(there, root, device, limit, again)
    shown = [run for run in there if run.result.identity not in failed]
    _show(shown, [*problems, *failed.values()], form)
    if figure is not None and shown:
        from .reports.leakage_figure import draw_leakage

        draw_leakage(shown, figure)
        click.echo(f"drawn: {figure}", err=True)
    raise SystemExit(1 if failed else 0)


def _probed(runs: Sequence[Run], root: Path | None, device: str, limit: int, again: bool) -> Mapping[str, str]:
    """Probe, with a line a run; the errors, by identity."""
    from .devices import pick_device
    from .probes import probe_runs

    def say(text: str) -> None:
        click.echo(text, err=True)

    return probe_runs(runs, root, pick_device(device), limit, again, say)


def _show(runs: Sequence[Run], problems: Sequence[str], form: str) -> None:
    from .reports.leakage import build_leakage
    from .reports.render_sheets import render_sheets, to_rich

    sheet = build_leakage(runs, problems)
    if form == "rich":
        from rich.console import Console

        Console().print(to_rich([sheet]))
    else:
        click.echo(render_sheets([sheet], form), nl=False)
