"""ONNX gives what torch gives."""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import invoke
from exported_models import TASK, as_float, blueprint, the
from torch.torch_version import TorchVersion

from debias_zoo import ZooError
from debias_zoo.assembly import untrained
from debias_zoo.method import Task
from debias_zoo.onnx_model import TOLERANCE, onnx_model

onnx_installed = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript"))
    or TorchVersion(torch.__version__) < (2, 9),
    reason="the extra `onnx` is not installed, of which torch 2.9 is a part",
)


@onnx_installed
def test_onnx_gives_what_torch_gives_for_any_number_of_images(store: Path, tmp_path: Path) -> None:
    import onnxruntime

    ended = invoke("export", "gray", str(tmp_path / "model"), "--out", str(store), "--onnx")
    assert ended.exit_code == 0, ended.output
    assert "model.safetensors, model.onnx, README.md, config.json" in ended.output
    _, trained, images = the(store, "gray")
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 2, 7, 100):
        image = as_float(images[:count])
        (found,) = session.run(["logits"], {"image": image.contiguous().numpy()})
        expected = trained.predict(image).numpy()
        assert np.abs(found - expected).max() <= TOLERANCE * max(1.0, np.abs(expected).max())
    assert "`model.onnx` takes `image` float32 (N, 3, 28, 28)" in (tmp_path / "model" / "README.md").read_text()
    digest = hashlib.sha256((tmp_path / "model" / "model.onnx").read_bytes()).hexdigest()
    assert json.loads((tmp_path / "model" / "config.json").read_text())["digests"]["model.onnx"] == digest


@onnx_installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backbone", "size"),
    [
        ("hex", "resnet18", 64),
        ("dfr", "simple_convnet", 28),
        ("denetdm", "mlp", 28),
        ("dfa", "convnext_atto", 64),
        ("end", "resnet20", 32),
        ("erm", "vit_tiny_patch16_224", 32),
    ],
)
def test_backbones_as_onnx(name: str, backbone: str, size: int) -> None:
    task = Task(3, 3, 60, (3, size, size), (3,), None, TASK.group_counts)
    method = untrained(blueprint(name, backbone=backbone), task).eval().requires_grad_(False)
    assert onnx_model(method, torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0)))


@onnx_installed
@pytest.mark.slow
def test_what_onnx_has_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    method = untrained(blueprint("erm"), TASK).eval().requires_grad_(False)
    image = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("debias_zoo.onnx_model._ran", lambda content, image: method.predict(image).numpy() + 0.01)
    with pytest.raises(ZooError, match=r"ONNX is off by 0\.01 in a logit, more than 0\.0001: nothing was written"):
        onnx_model(method, image)
    whole = type(method).predict
    monkeypatch.setattr(type(method), "predict", lambda self, image: whole(self, image) if image.sum() > 0 else image)
    with pytest.raises(ZooError, match=r"erm cannot be written as ONNX: .*leave out --onnx"):
        onnx_model(method, image)


def test_without_the_extra_onnx_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("debias_zoo.onnx_model.find_spec", lambda name: None)
    ended = invoke("export", "erm", str(tmp_path / "model"), "--out", str(tmp_path), "--onnx")
    assert ended.exit_code == 2
    assert "ONNX needs onnx, onnxruntime, onnxscript: pip install 'debias-zoo[onnx]'" in ended.output
