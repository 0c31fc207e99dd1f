"""A trained network as ONNX, checked against torch on real images."""

from __future__ import annotations

import io
import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .engine import quiet
from .errors import ZooError
from .method import Method

INPUT, OUTPUT = "image", "logits"

TOLERANCE = 1e-4
"""Largest difference of a logit, beside the largest logit where that is above 1. Other kernels add in another order:
1e-6 was seen on our nets, a ResNet, a ViT and a ConvNeXt; a wrong graph is off by much more."""

_NEEDED = ("onnx", "onnxruntime", "onnxscript")

Floats = npt.NDArray[np.float32]


class _Logits(nn.Module):
    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, image: Tensor) -> Tensor:
        return self.method.predict(image)


def check_installed() -> None:
    """Raise a ZooError where what writes and checks ONNX is not installed."""
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise ZooError(f"ONNX needs {', '.join(missing)}: pip install 'debias-zoo[onnx]'; or leave out --onnx")


def onnx_model(method: Method, image: Tensor) -> bytes:
    """The method's ``predict`` as an ONNX file: ``image`` float32 (N, C, H, W) in [0, 1] -> ``logits`` (N, classes).

    It was run on the given images, all together, one alone and all but one, and gave what torch gives.

    Args:
        method: trained, frozen, in eval mode, on the CPU.
        image: float (B, C, H, W) in [0, 1], B at least 3: real ones.

    Raises:
        ZooError: something is not installed, the network cannot be written as ONNX, or gives other numbers there.
    """
    check_installed()
    with quiet(method):
        content = _written(method, image[:2])
        for some in (image, image[:1], image[1:]):
            agree(_ran(content, some), method.predict(some).numpy(), "ONNX")
    return content


def agree(found: Floats, expected: Floats, who: str) -> None:
    """Raise a ZooError where logits (B, classes) differ from the trained network's by more than ``TOLERANCE``."""
    if found.shape != expected.shape:
        raise ZooError(f"{who} predicts {found.shape}, the trained network {expected.shape}: nothing was written")
    off = float(np.abs(found - expected).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not off <= allowed:  # NaN is not
        raise ZooError(f"{who} is off by {off:.3g} in a logit, more than {allowed:.3g}: nothing was written")


def _written(method: Method, example: Tensor) -> bytes:
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its own calls
            program: Any = torch.onnx.export(
                _Logits(method).eval(),
                (example,),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
                external_data=False,
                verbose=False,
            )
            program.save(buffer)
    except Exception as error:  # whatever an operation that ONNX has not makes the exporter raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ZooError(f"{method.name} cannot be written as ONNX: {first}; leave out --onnx") from error
    return buffer.getvalue()


def _ran(content: bytes, image: Tensor) -> Floats:
    runtime: Any = import_module("onnxruntime")
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: Floats = session.run([OUTPUT], {INPUT: image.contiguous().numpy()})[0]
    return found
