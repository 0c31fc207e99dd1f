from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from replicas import (
    BIASES,
    NORMALIZATIONS,
    assert_same_gradients,
    batch_norm,
    clock,
    conv,
    cross_entropy,
    gradients,
    make_batch,
    make_method,
    weights,
    weights_after,
)
from torch import Tensor, nn
from watching import same

from debias_zoo.methods.end import regularisers


def unit_features(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """LNL's net with tanh after its last convolution, pooled and scaled to length 1."""
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in NORMALIZATIONS["cifar"])
    p = "net.model."
    x = batch_norm((image - mean) / std, w, p + "stages.0.0", True)
    x = F.max_pool2d(F.relu(conv(x, w, p + "stages.0.1", 1, 2)), 3, 2, 1)
    x = F.relu(conv(x, w, p + "stages.1.0", 1, 1))
    x = F.relu(conv(x, w, p + "stages.2.0", 2, 1))
    x = torch.tanh(conv(x, w, p + "stages.3.0", 1, 1)).mean((2, 3))
    return x / (x * x).sum(1, keepdim=True).sqrt()


def replica(z: Tensor, label: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """R_perp and R_par, one pair after the other."""
    by_bias: dict[int, Tensor] = {}
    apart, together = 0, []
    for i in range(len(z)):
        for j in range(i):
            inner = (z[i] * z[j]).sum()
            if bias[i] == bias[j]:
                apart += 1
                by_bias[int(bias[i])] = by_bias.get(int(bias[i]), 0) + inner  # type: ignore[operator]
            elif label[i] == label[j]:
                together.append((1 + inner) / 2)
    zero = (0 * z).sum()
    perp = sum(abs(value) for value in by_bias.values()) / apart if apart else zero
    par = 1 - sum(together) / len(together) if together else zero
    return perp, par  # type: ignore[return-value]


def test_cross_entropy_and_both_regularisers() -> None:
    method, batch = make_method("end", alpha=0.6, beta=1.7), make_batch(12)
    w = weights(method)
    z = unit_features(w, batch.image)
    perp, par = replica(z, batch.label, batch.bias)  # type: ignore[arg-type]
    logits = z @ w["net.model.fc.weight"].T + w["net.model.fc.bias"]
    expected = cross_entropy(logits, batch.label) + 0.6 * perp + 1.7 * par
    found = method("main", batch, clock())
    assert_same_gradients(method, found["loss"], expected, w, ("net.",))
    assert float(found["apart"].detach()) == pytest.approx(float(perp.detach()), rel=1e-9)
    assert float(found["together"].detach()) == pytest.approx(float(par.detach()), rel=1e-9)
    torch.testing.assert_close(method.features(batch.image), z)
    torch.testing.assert_close(method.predict(batch.image), logits)


def test_every_term_reaches_what_it_should() -> None:
    method, batch = make_method("end"), make_batch(12)
    found = method("main", batch, clock())
    assert all(grad is not None for grad in gradients(method, found["loss"]).values())
    for term in (found["apart"], found["together"]):
        reached = {name for name, grad in gradients(method, term).items() if grad is not None}
        assert reached == {name for name, _ in method.named_parameters() if ".fc." not in name}


def authors_parallel(z: Tensor, label: Tensor, bias: Tensor) -> Tensor:
    """R_par with the pairs of the authors' code: the later image has the smaller bias."""
    pairs = [(i, j) for i in range(len(z)) for j in range(i) if label[i] == label[j] and bias[i] < bias[j]]
    return 1 - sum((1 + (z[i] * z[j]).sum()) / 2 for i, j in pairs) / len(pairs)  # type: ignore[return-value]


def test_all_conflicting_pairs_count_and_not_the_ordered_ones_alone() -> None:
    z = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
    label, bias = torch.tensor([0, 0, 0]), torch.tensor([1, 0, 2])
    _, par = regularisers(z, label, bias, 3)
    assert float(par) == pytest.approx(1 - (1.6 + 1.0 + 1.8) / 6)
    assert float(authors_parallel(z, label, bias)) == pytest.approx(1 - 1.6 / 2)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(regularisers(z[order], label, bias[order], 3)[1], par)


def test_extremes() -> None:
    one = torch.zeros(4, dtype=torch.int64)
    same = torch.tensor([[0.6, 0.8]] * 4, dtype=torch.float64)
    assert float(regularisers(same, one, one, 2)[0]) == pytest.approx(1.0)
    cross = torch.tensor([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    perp, _ = regularisers(cross, one, one, 2)
    assert float(perp) == pytest.approx(2 / 6)  # two opposite pairs, their sum taken before the absolute value
    assert float(regularisers(same[:2], one[:2], one[:2], 2)[0]) == pytest.approx(1.0), "a single pair"
    assert float(regularisers(torch.eye(4, dtype=torch.float64), one, one, 2)[0]) == 0.0
    other = torch.tensor([0, 1, 2, 3])
    assert float(regularisers(same, one, other, 4)[1]) == pytest.approx(0.0)
    opposite = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64)
    assert float(regularisers(opposite, one[:2], other[:2], 2)[1]) == pytest.approx(1.0)


def test_biases_do_not_cancel_each_other() -> None:
    z = torch.tensor([[1, 0], [1, 0], [0, 1], [0, -1]], dtype=torch.float64)
    perp, _ = regularisers(z, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]), 2)
    assert float(perp) == pytest.approx(1.0)


def test_a_batch_without_pairs_gives_cross_entropy() -> None:
    method, batch = make_method("end", alpha=5.0, beta=5.0), make_batch(3)
    batch = replace(batch, bias=torch.tensor([0, 1, 2]), label=torch.tensor([0, 1, 2]))
    found = method("main", batch, clock())
    assert found["apart"] == found["together"] == 0
    assert all(torch.isfinite(grad).all() for grad in gradients(method, found["loss"]).values() if grad is not None)
    torch.testing.assert_close(found["loss"], cross_entropy(method.predict(batch.image), batch.label))


def test_without_its_terms_it_is_cross_entropy_on_its_own_net() -> None:
    batches = [make_batch(seed=seed) for seed in range(4)]
    plain = make_method("end")
    plain.forward = lambda loss, batch, now: {"loss": F.cross_entropy(plain.predict(batch.image), batch.label)}
    expected = weights_after(plain, batches)
    found = weights_after(make_method("end", alpha=0.0, beta=0.0), batches)
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("backbone", ["lnl_convnet", "simple_convnet", "mlp"])
def test_plain_stacks_end_in_tanh_so_that_features_can_point_apart(backbone: str) -> None:
    method, erm = make_method("end", backbone=backbone), make_method("erm", backbone=backbone)
    assert isinstance(method.net.model.stages[-1][-1], nn.Tanh)
    assert same(method.state_dict(), erm.state_dict(), "net.")
    z = method.features(make_batch().image)
    assert z.min() < 0
    torch.testing.assert_close(z.norm(dim=1), torch.ones(8, dtype=torch.float64))


def test_residual_networks_stay_as_they_are() -> None:
    method = make_method("end", backbone="resnet18")
    assert not any(isinstance(module, nn.Tanh) for module in method.modules())
    assert torch.isfinite(method("main", make_batch(), clock())["loss"])


def test_pairs_are_compared_in_full_precision_under_autocast() -> None:
    z = F.normalize(torch.rand(16, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    label, bias = torch.arange(16) % 3, torch.arange(16) % BIASES
    with torch.autocast("cpu", torch.bfloat16):
        inside = regularisers(z, label, bias, BIASES)
    for one, other in zip(inside, regularisers(z.double(), label, bias, BIASES), strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-5)
