"""``debias-zoo export``: a finished trial as a folder that predicts elsewhere, with a model card."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import __version__
from .assembly import dataset_of
from .dataset import BiasDataset
from .engine import as_image, quiet
from .errors import ZooError
from .exported import CARD, CONFIG, ONNX, WEIGHTS, Exported, Network, Shapes, raw_config
from .files import FileDataset
from .inventory import find
from .loading import predictor_of, tensors_in
from .method import Method
from .model_card import model_card
from .onnx_model import agree, check_installed, onnx_model
from .probes import check_same
from .runner import load_train, trained_method, whole_task
from .shared import shared_split
from .store import Run, read_result
from .trial import Trial
from .writing import cannot_write, make_folder, write_bytes

CHECKED = 64
"""Images on which what was exported must predict as the trained network does."""


def export(
    run: str | Path | Run,
    folder: str | Path,
    *,
    out: str | Path = "runs",
    data_root: str | Path | None = None,
    onnx: bool = False,
    license: str = "",  # noqa: A002  (--license)
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write a finished trial's network into a folder, from which ``debias_zoo.load`` predicts.

    ``model.safetensors`` holds the weights that predictions and features read and no others, ``config.json`` what the
    network is built from, ``README.md`` a model card, and ``model.onnx`` the network for other programs. Before
    anything is written, what was exported predicts ``CHECKED`` test images as the trained network does.

    Args:
        run: a trial's folder; or, in the store ``out``, its identity or first digits, METHOD or DATASET/METHOD where
            one trial has that name; or an element of ``Runs.trials``.
        folder: new, empty, or an earlier export, which is replaced.
        out: the store.
        data_root: where downloaded data lie; None: ``$DEBIAS_ZOO_DATA``.
        onnx: whether to write ``model.onnx``; needs the extra ``onnx``.
        license: of the model, an identifier of the Hugging Face hub such as ``mit``; empty: said to be open.
        say: is told what is done.

    Returns:
        The folder.

    Raises:
        ZooError: there is no such finished trial, its data or method are not here as they were, the folder holds
            something else, or what was exported predicts otherwise.
    """
    if license and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", license):
        raise ZooError(f"license {license!r}: give an identifier as the Hugging Face hub has it, such as mit")
    place = Path(folder)
    _check_place(place)
    if onnx:
        check_installed()
    found = run if isinstance(run, Run) else _found(str(run), Path(out))
    root = data_root if data_root is not None else os.environ.get("DEBIAS_ZOO_DATA")
    files, images = _files(found, None if not root else Path(root), place, onnx, license)
    make_folder(place, "; name another folder")
    if ONNX not in files:
        _forget(place / ONNX)
    for name, content in files.items():  # config.json last: it tells of the others
        write_bytes(place / name, content)
    say(f"{found.result.trial.label}: {', '.join(files)} in {place}/, checked on {images} images")
    return place


def _check_place(place: Path) -> None:
    """Raise a ZooError where something else would be written over."""
    if place.exists() and not place.is_dir():
        raise ZooError(f"{place} is a file: name a folder")
    if place.is_dir() and any(place.iterdir()):
        try:
            raw_config(place)
        except ZooError as error:
            raise ZooError(f"{place} is not empty and holds no exported model: name a new folder") from error


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def _found(name: str, out: Path) -> Run:
    """The one finished trial of this name or in this folder."""
    path = Path(os.path.abspath(name))
    if (path / "result.json").is_file():
        return Run(read_result(path / "result.json"), path)
    named = find(out, [name])
    finished = [one for one in named if one.result is not None]
    if not finished:
        raise ZooError(f"{name} is not finished ({', '.join(dict.fromkeys(one.state for one in named))}): run it first")
    if len(finished) > 1:
        listed = ", ".join(one.identity for one in finished[:8]) + (", ..." if len(finished) > 8 else "")
        raise ZooError(f"{name} names {len(finished)} finished trials of {out}: give one of {listed}")
    assert finished[0].result is not None
    return Run(finished[0].result, Path(os.path.abspath(finished[0].path)))


def _files(run: Run, root: Path | None, place: Path, onnx: bool, license_: str) -> tuple[dict[str, bytes], int]:
    """The content of all files by name, and on how many images it was checked."""
    from safetensors.torch import save

    trial = run.result.trial
    dataset = dataset_of(trial)
    check_same(trial, dataset, root)
    train = load_train(trial, root)
    method = trained_method(trial, train, run.path)
    image = _images(trial, dataset, root)
    used = {name: value.contiguous().clone() for name, value in read_by_predictions(method, image[:2]).items()}
    weights = save(used, {"format": "pt"})
    files = {WEIGHTS: weights}
    if onnx:
        files[ONNX] = onnx_model(method, image)
    config = Exported(
        made_by=f"debias-zoo {__version__}",
        network=Network.of(trial),
        task=Shapes.of(whole_task(dataset.card, train)),
        classes=dataset.card.classes,
        biases=dataset.card.biases,
        steps=dataset.steps if isinstance(dataset, FileDataset) else (),
        digests={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        identity=trial.identity,
        dataset=trial.dataset,
        params=_told(trial.params),
        protocol=trial.protocol,
        precision=trial.precision,
        supervision=trial.supervision,
        metrics=run.result.metrics,
    )
    again = predictor_of(config, tensors_in(weights, place), place)
    with quiet(method):
        agree(again.logits(image), method.predict(image).float().numpy(), "what was exported")
    files[CARD] = model_card(run, dataset, config, method, license_).encode()
    files[CONFIG] = (config.model_dump_json(indent=1) + "\n").encode()
    return files, len(image)


def _images(trial: Trial, dataset: BiasDataset, root: Path | None) -> Tensor:
    """The first images of the test split, float (B, C, H, W) in [0, 1]."""
    split = shared_split(dataset, root, dataset.card.test_splits[0], trial.fingerprint).head(CHECKED)
    return as_image(torch.from_numpy(np.array(split.images[: len(split)])))


def read_by_predictions(method: Method, image: Tensor) -> Mapping[str, Tensor]:
    """What of a method's state ``predict`` and ``features`` read, by name. image: float (B, C, H, W) in [0, 1]."""
    with quiet(method), _Reads() as reads:
        method.predict(image)
        method.features(image)
    state = method.state_dict()
    return {name: value for name, value in state.items() if value.untyped_storage().data_ptr() in reads.places}


class _Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes where in memory the tensors lie that operations are handed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.places: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})):
            if isinstance(value, Tensor):
                self.places.add(value.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))


def _told(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the data; of paths only the last part: where files lie on this machine is nobody's business."""
    return {key: Path(value).name if _is_path(value) else value for key, value in params.items()}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and os.sep in value
