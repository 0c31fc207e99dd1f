"""One folder a trial, written atomically; what is finished is never lost, what is damaged is never used.

``<out>/<dataset>/<method>/<seed>-<identity>/`` holds ``config.json``, ``curves.jsonl``, ``predictions.npz``,
``model.safetensors``, ``result.json`` (written last), ``checkpoint.pt`` while the trial runs, ``error.txt`` if it
failed and ``probe.json`` once it was probed.
"""

from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .errors import ZooError
from .trial import SCHEMA, Explained, Probe, Result, Trial
from .validated import reason
from .writing import make_folder, write_bytes, write_text

Found = TypeVar("Found", Probe, Explained)


class Folder:
    """The files of one trial. ``warn`` is told what was found damaged and put aside."""

    def __init__(self, path: Path, warn: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.warn = warn

    @contextmanager
    def locked(self, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Only one process works in a folder; the lock goes with the process, however it ends."""
        make_folder(self.path)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def result(self, aside: bool = True) -> Result | None:
        """The finished result, or None; a damaged one counts as unfinished, and is put ``aside``, or only told of."""
        try:
            return read_result(self.path / "result.json")
        except FileNotFoundError:
            return None
        except DamagedError as error:
            if aside:
                self.put_aside("result.json", str(error))
            else:
                self.warn(f"{error}; the trial starts again")
            return None

    def put_aside(self, name: str, reason: str) -> None:
        """Rename a file that cannot be used, and say so."""
        with suppress(FileNotFoundError):  # somebody has just deleted it
            (self.path / name).replace(self.path / f"{name}.damaged")
        self.warn(f"{self.path / name}: {reason}; put aside as {name}.damaged, the trial starts again")

    def start(self, trial: Trial) -> None:
        """Note what is about to run."""
        write_text(self.path / "config.json", trial.model_dump_json(indent=1) + "\n")
        (self.path / "error.txt").unlink(missing_ok=True)

    def checkpoint(self, device: Any = "cpu") -> dict[str, Any] | None:
        """The state to resume from, or None; a damaged one is put aside and the trial starts again."""
        import torch

        path = self.path / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:  # torch compares no checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state = torch.load(path, map_location=device, weights_only=True)
            if not isinstance(state, dict):
                raise TypeError
            return state
        except Exception as error:  # whatever a truncated archive makes torch raise
            self.put_aside("checkpoint.pt", f"cannot be read ({type(error).__name__})")
            return None

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        import torch

        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.path / "checkpoint.pt", buffer.getbuffer())

    def save_curves(self, curves: list[dict[str, Any]]) -> None:
        """One JSON line an epoch."""
        write_text(self.path / "curves.jsonl", "".join(json.dumps(row) + "\n" for row in curves))

    def finish(self, result: Result, predictions: Mapping[str, npt.NDArray[Any]], weights: Mapping[str, Any]) -> None:
        """Write predictions, weights and, last, the result; then the checkpoint is not needed any more."""
        from safetensors.torch import save

        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **predictions)
        write_bytes(self.path / "predictions.npz", buffer.getbuffer())
        apart = {name: value.detach().contiguous().clone() for name, value in weights.items()}  # names may share memory
        write_bytes(self.path / "model.safetensors", save(apart))
        write_text(self.path / "result.json", result.model_dump_json(indent=1) + "\n")
        (self.path / "checkpoint.pt").unlink(missing_ok=True)

    def restate(self, result: Result, trial: Trial) -> Result:
        """Say of a finished result what the same trial says now: where its settings come from and who chose them."""
        with self.locked():
            stated = result.model_copy(update={"trial": trial})
            write_text(self.path / "result.json", stated.model_dump_json(indent=1) + "\n")
        return stated

    def fail(self, text: str) -> None:
        """Note why the trial failed."""
        write_text(self.path / "error.txt", text.rstrip() + "\n")


class DamagedError(ZooError):
    """A file of the store that cannot be read."""


class NewerError(ZooError):
    """A file of a later version of debias-zoo."""


def read_result(path: Path) -> Result:
    """The result in ``path``; raises FileNotFoundError, DamagedError, or a ZooError where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            content = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ZooError(f"cannot read {path}: {error.strerror or error}") from error
    return parse_result(content, path)


def parse_result(content: bytes, path: Path) -> Result:
    """A result from the content of ``path``; raises DamagedError with the reason, or NewerError."""
    try:
        result = Result.model_validate_json(content)
    except Exception as error:  # what is not JSON, nested too deeply, or of other fields
        _check_schema(_schema(content), path)
        raise DamagedError(f"result {path} cannot be read ({reason(error)})") from error
    _check_schema(result.schema_version, path)
    if result.schema_version < 1:
        raise DamagedError(f"result {path} has schema {result.schema_version}, which there never was")
    if result.identity != result.trial.identity:
        raise DamagedError(f"result {path} does not belong to its configuration (identity {result.identity})")
    return result


def _schema(content: bytes) -> object:
    """The schema of a result that has other fields, or None."""
    try:
        data = json.loads(content.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return data.get("schema_version") if isinstance(data, dict) else None


def _check_schema(schema: object, path: Path) -> None:
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerError(f"result {path} has schema {schema}, this version reads up to {SCHEMA}: upgrade debias-zoo")


@dataclass(frozen=True)
class Predictions:
    """What was predicted on one split, in every evaluated epoch.

    Attributes:
        classes: integers (E, N). log_odds: float16 (E, N), log(p / (1 - p)) of the predicted class.
        labels: int16 (N,). biases: int16 (N,), or None where not annotated.
    """

    classes: npt.NDArray[np.integer[Any]]
    log_odds: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int16]
    biases: npt.NDArray[np.int16] | None


@dataclass(frozen=True)
class Run:
    """A finished trial: its result, and the folder with its other files."""

    result: Result
    path: Path

    def predictions(self) -> dict[str, Predictions]:
        """By split. Raises a ZooError where they are missing, damaged, or not those of the result."""
        path = self.path / "predictions.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            splits = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
            found = {split: _predictions(arrays, split) for split in splits}
            _check_predictions(found, self.result)
            return found
        except FileNotFoundError as error:
            raise ZooError(f"{path} is missing: without the predictions only the last epoch is known") from error
        except Exception as error:  # whatever a damaged archive makes numpy raise
            raise ZooError(f"{path} cannot be read ({type(error).__name__}: {error})") from error

    def curves(self) -> list[dict[str, Any]]:
        """One dict an epoch, as the trainer wrote them. Raises a ZooError where they are missing or damaged."""
        path = self.path / "curves.jsonl"
        try:
            return [json.loads(line) for line in path.read_text().splitlines()]
        except (OSError, ValueError) as error:
            raise ZooError(f"{path} cannot be read ({type(error).__name__}: {error})") from error

    def probe(self) -> Probe | None:
        """What ``debias-zoo probe`` found, or None. Raises a ZooError where it is damaged or of another version."""
        return self._record(Probe, "probe")

    def explained(self) -> Explained | None:
        """What ``debias-zoo explain`` found, or None. Raises a ZooError where it is damaged or of another version."""
        return self._record(Explained, "explain")

    def save(self, record: Probe | Explained) -> None:
        """Put what was found beside the trial's other files."""
        name = "probe" if isinstance(record, Probe) else "explain"
        write_text(self.path / f"{name}.json", record.model_dump_json(indent=1) + "\n")

    def _record(self, model: type[Found], command: str) -> Found | None:
        path = self.path / f"{command}.json"
        try:
            data = json.loads(path.read_text(errors="replace"))
            schema = data.get("schema_version") if isinstance(data, dict) else None
            known = schema == model.model_fields["schema_version"].default
            found = model.model_validate(data) if known else None
        except FileNotFoundError:
            return None
        except Exception as error:  # what cannot be opened, is not JSON, nested too deeply, or of other fields
            raise DamagedError(f"{path} cannot be read ({type(error).__name__}): {command} again") from error
        if found is None or found.identity != self.result.identity:
            raise DamagedError(f"{path} is of another trial or of another version of debias-zoo: {command} again")
        return found


def _predictions(arrays: Mapping[str, npt.NDArray[Any]], split: str) -> Predictions:
    found = Predictions(
        arrays[f"{split}.class"], arrays[f"{split}.log_odds"], arrays[f"{split}.label"], arrays.get(f"{split}.bias")
    )
    shape = found.classes.shape
    biased = found.biases is None or found.biases.shape == shape[1:]
    if len(shape) != 2 or found.log_odds.shape != shape or found.labels.shape != shape[1:] or not biased:
        raise ValueError(f"split {split!r} has classes {shape}, labels {found.labels.shape}")
    return found


def _check_predictions(found: Mapping[str, Predictions], result: Result) -> None:
    """Raise a ValueError where the predictions cannot be those of the result."""
    if missing := [split for split in result.metrics if split not in found]:
        raise ValueError(f"no predictions of split {missing[0]!r}")
    epochs = {len(split.classes) for split in found.values()}
    if len(epochs) != 1 or min(epochs) < max(1, result.selectable or 1):
        raise ValueError(f"it has {sorted(epochs)} epochs, of which {result.selectable} may be selected")
    for name, metrics in result.metrics.items():
        split, told = found[name], (metrics.get("n"), metrics.get("accuracy"))
        right = float((split.classes[-1] == split.labels).mean()) if len(split.labels) else None
        if any(value is not None and value != own for value, own in zip(told, (len(split.labels), right), strict=True)):
            raise ValueError(f"of split {name!r} it has other predictions than the result was made of")
    if result.groups is None:
        return
    for name, split in found.items():
        for what, codes, count in zip(
            ("label", "bias"), (split.labels, split.biases), result.groups.shape, strict=True
        ):
            if codes is not None and len(codes) and not 0 <= codes.min() <= codes.max() < count:
                raise ValueError(f"split {name!r} has a {what} that is none of {count}")


def read_results(out: Path) -> tuple[list[Result], list[str]]:
    """All finished results below ``out`` in the order of their paths, and what could not be read or is unfinished."""
    runs, problems = read_runs(out)
    return [run.result for run in runs], problems


def read_runs(out: Path) -> tuple[list[Run], list[str]]:
    """All finished trials below ``out`` in the order of their paths, and what could not be read or is unfinished."""
    if not out.exists():
        raise ZooError(f"there is no folder {out}: run something first, or name another folder")
    runs, problems = [], []
    with uncollected():
        for folder in trial_folders(out):
            try:
                runs.append(Run(read_result(folder / "result.json"), folder))
            except FileNotFoundError:
                problems.append(_why_unfinished(folder))
            except ZooError as error:
                problems.append(f"not read: {error}")
    return runs, problems


def read_finished(out: Path) -> tuple[list[Run], list[str]]:
    """As ``read_runs``; raises a ZooError where no trial is finished."""
    runs, problems = read_runs(out)
    if not runs:
        unfinished = f" ({len(problems)} unfinished or failed: {problems[0]})" if problems else ""
        raise ZooError(f"no finished trial under {out}{unfinished}")
    return runs, problems


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for cycles, which goes through all results again and again, and finds none in them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def trial_folders(out: Path) -> list[Path]:
    """The folders of trials below ``out``, in the order of their paths; links to folders are not followed."""
    ours = {"config.json", "result.json"}
    found = [path for path, folders, files in os.walk(out) if not ours.isdisjoint([*folders, *files])]
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def _why_unfinished(folder: Path) -> str:
    said = why_failed(folder)
    return f"failed: {folder}: {said}" if said else f"unfinished: {folder}"


def why_failed(folder: Path) -> str:
    """The last line of what a trial died of, or "" where it did not fail."""
    try:
        said = (folder / "error.txt").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return said[-1] if said else "no reason noted"
