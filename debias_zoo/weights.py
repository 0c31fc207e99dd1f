"""Initial weights of a backbone: a file's state dict or timm's pretrained ones, strict but for the classifier."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ZooError
from .timm_models import create

PRETRAINED = "timm"
"""What stands for timm's own pretrained weights, where the path of a file may stand."""

_WRAPPERS = ("state_dict", "model", "state_dict_ema")
"""Keys under which checkpoints keep the state dict itself."""

_NET = "net.model."
"""Where a trial's ``model.safetensors`` has the backbone that predicts, beside whatever else its method trains."""

Weights = dict[str, Tensor]


def initial_weights(source: str, name: str, image_shape: tuple[int, int, int], options: dict[str, Any]) -> Weights:
    """All tensors of the timm model ``name`` but its classifier's, by their names there.

    Args:
        source: the path of a ``.safetensors`` file, such as a finished trial's, or of a state dict that torch saved; or
            ``"timm"``.
        name: of the timm model.
        image_shape: (C, H, W) that it is built for.
        options: that it is built with.

    Names that are not timm's are told from the order: as many tensors, each of the same shape and kind
    (``weight``, ``running_mean``, ...) as timm's at its place.

    Raises:
        ZooError: the file cannot be read or does not fit; there is no network, or no pretrained weights.
    """
    return _fitted(source, name, image_shape, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=4)
def _fitted(source: str, name: str, image_shape: tuple[int, int, int], options: str) -> Weights:
    own = json.loads(options)
    with torch.random.fork_rng(devices=[]):
        model = _downloaded(name, image_shape, own) if source == PRETRAINED else create(name, 2, image_shape, own)
    found = model.state_dict() if source == PRETRAINED else read_state(Path(source))
    return fit(found, model, f"weights {source} for backbone {name!r}")


def digest(weights: Weights) -> str:
    """Sixteen hex digits of names and values."""
    found = hashlib.blake2b(digest_size=8)
    for name, value in sorted(weights.items()):
        found.update(name.encode())
        found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def put(model: nn.Module, weights: Weights) -> None:
    """Load ``weights`` into a timm model, whose classifier keeps its own."""
    model.load_state_dict(weights, strict=False)


def read_state(path: Path) -> Weights:
    """The tensors of a file, out of a checkpoint's wrapping; nothing in the file is run."""
    if not path.is_file():
        raise ZooError(f"--weights {path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or foreign file may raise anything
        first = str(error).splitlines()[0] if str(error) else ""
        raise ZooError(
            f"--weights {path} is no state dict that can be read safely: {type(error).__name__}: {first}"
        ) from error
    for key in _WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in found.items())
    ):
        raise ZooError(f"--weights {path} holds no state dict: a mapping from names to tensors")
    if all(key.startswith("module.") for key in found):  # of a DataParallel
        found = {key.removeprefix("module."): value for key, value in found.items()}
    return {key.removeprefix(_NET): value for key, value in found.items() if key.startswith(_NET)} or dict(found)


def fit(found: Weights, model: nn.Module, who: str) -> Weights:
    """The tensors of ``found`` by the names of ``model``, without the classifier's."""
    head = classifier_names(model)
    wanted = {name: value for name, value in model.state_dict().items() if name not in head}
    if missing := sorted(set(wanted) - set(found)):
        by_order = _by_order(found, model.state_dict(), wanted)
        if by_order is None:
            raise ZooError(
                f"{who} do not fit: {len(missing)} of {len(wanted)} tensors are missing, such as {_some(missing)}; the "
                f"file has {len(found)}, such as {_some(list(found))}"
            )
        return by_order
    if unknown := sorted(set(found) - set(wanted) - head):
        raise ZooError(f"{who} do not fit: {len(unknown)} tensors have no place in it, such as {_some(unknown)}")
    for name, value in wanted.items():
        if not bool(found[name].isfinite().all()):
            raise ZooError(f"{who} do not fit: {name} is not finite")
        if found[name].shape != value.shape:
            raise ZooError(f"{who} do not fit: {name} is {tuple(found[name].shape)}, not {tuple(value.shape)}")
    return {name: found[name] for name in wanted}


def classifier_names(model: Any) -> set[str]:
    """The names of the classifier's tensors."""
    head = model.get_classifier()
    names = [name for name, module in model.named_modules() if module is head]
    return {f"{name}.{key}" for name in names for key in head.state_dict()}


def _by_order(found: Weights, own: Weights, wanted: Weights) -> Weights | None:
    """Tensors of another naming: n-th to n-th, if every shape and the last part of every name agree."""
    if len(found) != len(own):
        return None
    paired = {}
    for (theirs, value), (ours, like) in zip(found.items(), own.items(), strict=True):
        if ours in wanted:
            if value.shape != like.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]:
                return None
            paired[ours] = value
    return paired


def _downloaded(name: str, image_shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    try:
        return create(name, 2, image_shape, {**options, "pretrained": True})
    except ZooError as error:
        raise ZooError(f"--pretrained: {error}") from error
    except Exception as error:  # the hub raises its own and those of its network library
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ZooError(
            f"--pretrained: timm's weights of {name!r} could not be fetched ({first}). Without a network, fetch them "
            "elsewhere and give the file with --weights FILE, or copy that machine's ~/.cache/huggingface here"
        ) from error


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
