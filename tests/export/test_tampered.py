"""What was changed in an exported model is refused, and none of it runs."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from debias_zoo import ZooError, load


def rewrite(place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((place / "config.json").read_text())
    change(data)
    (place / "config.json").write_text(json.dumps(data))


def with_weights(place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Other weights, with the digest that they have."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(place / "model.safetensors")
    change(tensors)
    save_file(tensors, place / "model.safetensors")
    digest = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
    rewrite(place, lambda data: data["digests"].update({"model.safetensors": digest}))


def network(**changes: Any) -> Callable[[Path], None]:
    return lambda place: rewrite(place, lambda data: data["network"].update(changes))


def nested(place: Path) -> None:
    (place / "config.json").write_text("[" * 100_000)


def one_bit(place: Path) -> None:
    content = bytearray((place / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (place / "model.safetensors").write_bytes(content)


class Bomb:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploded"),))


def a_pickle(place: Path) -> None:
    content = pickle.dumps(Bomb())
    (place / "model.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    rewrite(place, lambda data: data["digests"].update({"model.safetensors": digest}))


TAMPERED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "one bit": (one_bit, "is not the file that was exported"),
    "no weights": (lambda place: (place / "model.safetensors").unlink(), "cannot read .*No such file"),
    "a pickle": (a_pickle, "model.safetensors cannot be read"),
    "no config": (lambda place: (place / "config.json").unlink(), "it has no config.json"),
    "no json": (lambda place: (place / "config.json").write_text("{"), "config.json cannot be read"),
    "nested": (nested, "config.json cannot be read"),
    "another's": (lambda place: (place / "config.json").write_text('{"a": 1}'), "config.json is of something else"),
    "later": (lambda place: rewrite(place, lambda data: data.update(schema_version=2)), "upgrade debias-zoo"),
    "more fields": (lambda place: rewrite(place, lambda data: data.update(run="rm")), "config.json cannot be used"),
    "no method": (network(method="lnn"), "unknown method 'lnn'; did you mean 'lnl'"),
    "a version": (network(method_version=99), "exported from version 99 of method 'lnl', this is version"),
    "a network": (network(backbone="resnet20"), "has .* tensors of no place in the network"),
    "no network": (network(backbone="hf-hub:evil/model"), "unknown backbone 'hf-hub:evil/model'"),
    "fetches": (network(backbone_options={"pretrained": True}), "fetches no weights"),
    "reads files": (network(backbone_options={"checkpoint_path": "x.pth"}), "takes no option 'checkpoint_path'"),
    "weights": (network(weights="x.pth"), "config.json cannot be used"),
    "settings": (network(config={"scale": "much"}), "network cannot be built"),
    "classes": (lambda place: rewrite(place, lambda data: data.update(classes=["a"])), "names 1 classes"),
    "huge": (
        lambda place: rewrite(place, lambda data: data["task"].update(bias_map=[3, 10**15, 14, 14])),
        "cannot be built",
    ),
    "large": (
        lambda place: rewrite(place, lambda data: data["task"].update(bias_map=[3, 10**7, 14, 14])),
        r"a tensor of shape \(10000000, 32, 3, 3\) is more than an exported model may have",
    ),
    "deep": (
        network(backbone="mlp", backbone_options={"width": 1, "depth": 10**7}),
        "it takes more steps than those of an exported model may",
    ),
    "a large network": (
        network(backbone="vit_large_patch16_224"),
        r"a tensor of shape .* is more than an exported model may have",
    ),
    "large images": (
        lambda place: rewrite(place, lambda data: data["task"].update(image_shape=[3, 10**5, 10**5])),
        "task.image_shape.1: Input should be less than or equal to 4096",
    ),
    "no classes": (
        lambda place: rewrite(place, lambda data: data["task"].update(classes=-1)),
        "task.classes: Input should be greater than or equal to 1",
    ),
    "too few": (lambda place: with_weights(place, lambda found: found.pop("net.model.fc.weight")), "lacks weights"),
    "not finite": (
        lambda place: with_weights(place, lambda found: found["net.model.fc.bias"].fill(np.inf)),
        "some that are not finite",
    ),
    "a shape": (
        lambda place: with_weights(place, lambda found: found.update({"net.model.fc.bias": np.zeros(3, np.float32)})),
        r"net.model.fc.bias is torch.float32 \(3,\), the network has torch.float32 \(10,\)",
    ),
    "a type": (
        lambda place: with_weights(place, lambda found: found.update({"net.model.fc.bias": np.zeros(10, np.int64)})),
        r"net.model.fc.bias is torch.int64",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_tampered_with_is_refused(how: str, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    tamper, words = TAMPERED[how]
    tamper(copy)
    with pytest.raises(ZooError, match=words):
        load(copy)
    assert [path.name for path in copy.parent.iterdir()] == ["copy"], "something was run"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"no exported model: there is no such folder; `debias-zoo export RUN FOLDER`"):
        load(tmp_path / "nowhere")
