"""``debias-zoo data``: where data sets stand, and how their files come here, are checked and are looked at."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .dataset import BiasDataset
from .errors import ZooError
from .grid import parse_datasets
from .registry import entries, load_dataset
from .sources import differs, get, unpack
from .writing import cannot_write, make_folder

NO_ROOT = "say where downloaded data shall lie: --data-root DIR, or $DEBIAS_ZOO_DATA"

CHECKSUM_ADVICE = (
    "Failing means that the file is not the published one. Usual causes: a download that broke off, another version."
)

Said = Callable[[int, int], None]


def one_dataset(text: str) -> BiasDataset:
    """``name[:key=value,...]`` as one data set."""
    found = parse_datasets(text)
    if len(found) > 1:
        raise ZooError(f"{text!r} names {len(found)} data sets: give each parameter one value")
    return found[0]


def status(root: Path | None) -> list[dict[str, str]]:
    """One row for each data set: ``name``, ``state``, ``where``, ``size``, ``licence``, ``about``."""
    return [_state(name, root) for name in entries("dataset")]


def _state(name: str, root: Path | None) -> dict[str, str]:
    row = {"name": name, "state": "", "where": "", "size": "", "licence": "", "about": ""}
    try:
        dataset = load_dataset(name)()
        card = dataset.card
    except ZooError as error:
        return {**row, "state": "your own" if name in str(error) else "broken", "about": str(error)}
    row |= {"size": card.size, "licence": card.licence}
    if not card.folder:
        return {**row, "state": "bundled"}
    where = (root or Path()) / card.folder
    row["where"] = str(where if root else card.folder)
    if root is None or not where.is_dir():
        how = "`data get` fetches it, or says how" if card.sources else "`data get` says how to get it"
        return {**row, "state": "missing", "about": how}
    try:
        dataset.check(root)
        dataset.fingerprint(root)  # looks at every file
    except Exception as error:  # a broken layout may make a data set raise anything
        return {**row, "state": "incomplete", "about": str(error)}
    return {**row, "state": "ready"}


def fetch(dataset: BiasDataset, root: Path | None, console: Console) -> None:
    """Bring the files that can be fetched, and say what is left to do by hand."""
    card = dataset.card
    if not card.folder:
        console.print(f"{dataset.name} is bundled: nothing to fetch", markup=False, highlight=False)
        return
    if root is None:
        raise ZooError(NO_ROOT)
    folder = root / card.folder
    for source in card.sources:
        if source.there(folder):
            console.print(f"{source.file}: there already", markup=False, highlight=False)
            continue
        try:
            with bar(console, source.file, in_bytes=True) as report:
                get(source, folder, report)
        except ZooError as error:
            raise ZooError(f"{error}\n{by_hand(dataset, folder)}") from error
    try:
        dataset.check(root)
        dataset.fingerprint(root)  # looks at every file
    except ZooError as error:
        found = f"{error}\n" if folder.is_dir() else ""
        raise ZooError(f"{found}{by_hand(dataset, folder)}") from error
    console.print(f"{dataset.name} is ready in {folder}", markup=False, highlight=False, soft_wrap=True)


def by_hand(dataset: BiasDataset, folder: Path) -> str:
    """What to fetch, where to put it and what comes next."""
    card = dataset.card
    return (
        f"{dataset.name}, by hand (licence: {card.licence}; {card.url}): {card.get}\nIts place is {folder}/; "
        f"`debias-zoo data import {dataset.name} ARCHIVE_OR_FOLDER --data-root {folder.parent}` puts there what you "
        f"have, `debias-zoo data verify {dataset.name} --data-root {folder.parent}` checks it"
    )


def bring(dataset: BiasDataset, origin: Path, root: Path | None, console: Console) -> None:
    """Put an archive or a folder of the official layout into its place, if it is that layout.

    It is copied beside its place, checked there and moved: what does not fit leaves nothing behind.
    """
    card = dataset.card
    if not card.folder:
        raise ZooError(f"{dataset.name} is bundled: there is nothing to import")
    home = needed(root)
    target, beside = home / card.folder, home / f".importing-{card.folder}"
    if target.exists():
        raise ZooError(f"{target} is there already: `debias-zoo data verify {dataset.name}` checks it")
    if origin.is_dir() and home.resolve().is_relative_to(origin.resolve()):
        raise ZooError(f"{home} lies inside {origin}: name another --data-root")
    shutil.rmtree(beside, ignore_errors=True)
    place = beside / card.folder
    try:
        if origin.is_dir():
            shutil.copytree(origin, place)
        elif origin.is_file():
            unpack(origin, place)
            inner = list(place.iterdir())
            if len(inner) == 1 and inner[0].is_dir() and not _fits(dataset, beside):
                inner[0].replace(beside / "inner")
                place.rmdir()
                (beside / "inner").replace(place)
        else:
            raise ZooError(f"there is no {origin}: name an archive or a folder")
        _check_layout(dataset, origin, beside)
        place.replace(target)
    except OSError as error:
        raise cannot_write(target, error, "; choose another place with --data-root") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    console.print(f"{dataset.name} is ready in {target}", markup=False, highlight=False, soft_wrap=True)


def _check_layout(dataset: BiasDataset, origin: Path, home: Path) -> None:
    fresh = dataset.again()
    try:
        fresh.check(home)
        fresh.fingerprint(home)
    except ZooError as error:
        raise ZooError(f"{origin} is not {dataset.name} in its official layout: {error}") from error


def _fits(dataset: BiasDataset, home: Path) -> bool:
    try:
        dataset.again().check(home)
    except ZooError:
        return False
    return True


def verify(dataset: BiasDataset, root: Path | None, console: Console) -> list[dict[str, Any]]:
    """Checksums of what has a public one, then all checks of ``check_dataset``: one row each, as of ``check``."""
    from .testing import dataset_checks

    card = dataset.card
    rows: list[dict[str, Any]] = []
    for name, digest in card.digests.items():
        file = (root or Path()) / card.folder / name
        if file.is_file():
            wrong = differs(file, digest)
            state, advice = ("failed", CHECKSUM_ADVICE) if wrong else ("passed", "")
            rows.append(_row(dataset.name, f"checksum of {name}", state, wrong, advice))
    dataset.check(root)
    prepare([dataset], root, console)
    for check in dataset_checks(dataset, root):
        verdict = check.verdict()
        rows.append(_row(dataset.name, verdict.name, verdict.status, verdict.reason, verdict.advice))
    return rows


def _row(dataset: str, check: str, state: str, reason: str, advice: str) -> dict[str, Any]:
    return {"dataset": dataset, "check": check, "status": state, "reason": reason, "advice": advice}


def prepare(datasets: list[BiasDataset], root: Path | None, console: Console) -> None:
    """Decode what has to be decoded, each data set once, with a bar."""
    seen = set()
    for dataset in datasets:
        key = (dataset.name, dataset.params.model_dump_json())
        if key not in seen:
            seen.add(key)
            with bar(console, f"decoding {dataset.name}", in_bytes=False) as report:
                said = dataset.prepare(root, report)
            for text in said:
                console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(console: Console, what: str, in_bytes: bool) -> Iterator[Said]:
    """A function that is told how much of how much is done, and shows it; nothing is shown before it is called."""
    columns = DownloadColumn() if in_bytes else MofNCompleteColumn()
    progress = Progress(TextColumn("{task.description}"), BarColumn(), columns, TimeRemainingColumn(), console=console)
    shown: list[Any] = []
    plain = [-1]

    def report(done: int, total: int) -> None:
        if not console.is_terminal:
            tenth = 10 * done // total if total else 0
            if tenth != plain[0]:
                plain[0] = tenth
                console.print(
                    f"{what}: {done} of {total or '?'}{' bytes' * in_bytes}",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            return
        if not shown:
            progress.start()
            shown.append(progress.add_task(what))
        if shown and progress.tasks[-1].completed > done:  # the next split
            shown.append(progress.add_task(what))
        progress.update(shown[-1], completed=done, total=total or None)

    try:
        yield report
    finally:
        if shown:
            progress.stop()


def needed(root: Path | None) -> Path:
    """The folder of downloaded data, made if it is not there."""
    if root is None:
        raise ZooError(NO_ROOT)
    make_folder(root)
    return root
