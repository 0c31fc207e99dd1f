from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from replicas import (
    SIDE,
    assert_same_gradients,
    clock,
    cross_entropy,
    lnl_net,
    make_batch,
    make_method,
    make_task,
    weights,
)
from torch import Tensor, nn

from debias_zoo.backbones import BackboneFactory
from debias_zoo.engine import quiet
from debias_zoo.errors import ZooError
from debias_zoo.methods import hex as hex_module
from debias_zoo.methods.hex import HEX
from debias_zoo.methods.losses.nglcm import NGLCM, gray_levels
from debias_zoo.methods.losses.projection import project_out
from debias_zoo.testing.bench import Bench

LEVELS = 16


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the co-occurrence matrix


def images_of_levels() -> Tensor:
    """Three small images whose pixels are whole levels, with 0 and 15 in each."""
    gray = torch.randint(0, LEVELS, (3, 4, 5), generator=torch.Generator().manual_seed(0)).double()
    gray[:, 0, 0], gray[:, 1, 1] = 0.0, LEVELS - 1.0
    return gray


def cumulative_counts(gray: Tensor, at_least: bool) -> Tensor:
    """For every two levels the pixels above both: by their level, and by the step from the pixel before."""
    counts = torch.zeros(len(gray), LEVELS, LEVELS, dtype=torch.float64)
    for image, found in zip(gray, counts, strict=True):
        pixels = [int(value) for row in image for value in row]
        for k, level in enumerate(pixels):
            step = level - (pixels[k - 1] if k else 0)
            for n in range(LEVELS):
                for m in range(LEVELS):
                    found[n, m] += (level >= n and step >= m) if at_least else (level > n and step > m)
    return counts


@pytest.mark.parametrize(("epsilon", "at_least"), [(1e-9, False), (1.0, True)])
def test_fixed_thresholds_count_co_occurrences(epsilon: float, at_least: bool) -> None:
    texture = NGLCM(LEVELS).double()
    for phi in texture.parameters():
        phi.data.copy_(torch.arange(LEVELS) - epsilon)
    expected = cumulative_counts(images_of_levels(), at_least)
    assert 0 < (expected > 0).double().mean() < 1
    torch.testing.assert_close(texture(images_of_levels()), expected, rtol=1e-6, atol=1e-6)


def replica_texture(gray: Tensor, phi_a: Tensor, phi_b: Tensor, step: bool = True) -> Tensor:
    """Section 3.1 with the matrix D written out, pixel by pixel; ``step=False`` is the published typing error."""
    found = []
    for image in gray:
        x = image.flatten()
        a = torch.floor(x / x.max() * (LEVELS - 1))
        d = torch.eye(len(a), dtype=torch.float64)
        for i in range(len(a) - 1):
            d[i, i + 1] = -1.0
        b = a @ d if step else a
        g = torch.zeros(LEVELS, LEVELS, dtype=torch.float64)
        for j in range(len(a)):
            g = g + torch.clamp(a[j] - phi_a, 0.0, 1.0)[:, None] * torch.clamp(b[j] - phi_b, 0.0, 1.0)[None, :]
        found.append(g)
    return torch.stack(found)


@pytest.mark.parametrize("step", [True, False])
def test_the_matrix_and_its_gradient_are_the_papers(step: bool) -> None:
    """... and a difference that is no difference (HEX_experiments: x_d = x_re) is told from it."""
    torch.manual_seed(0)
    texture = NGLCM(LEVELS).double()
    gray = random(2, 4, 5).abs()
    phi_a, phi_b = (phi.detach().clone().requires_grad_() for phi in (texture.phi_a, texture.phi_b))
    own, expected = texture(gray), replica_texture(gray, phi_a, phi_b, step)
    weight = random(LEVELS, LEVELS)
    grads = torch.autograd.grad((own * weight).sum(), list(texture.parameters()))
    theirs = torch.autograd.grad((expected * weight).sum(), [phi_a, phi_b])
    same = [torch.allclose(own, expected, rtol=1e-6)]
    same += [torch.allclose(mine, other, rtol=1e-6) for mine, other in zip(grads, theirs, strict=True)]
    assert all(same) if step else not any(same)


def test_levels_reach_from_0_to_the_last_in_every_image() -> None:
    gray = torch.stack([torch.linspace(0.0, top, 12).view(3, 4) for top in (1e-4, 0.5, 1.0)])
    levels = gray_levels(gray, LEVELS)
    assert (levels.amin((1, 2)).tolist(), levels.amax((1, 2)).tolist()) == ([0.0] * 3, [15.0] * 3)
    assert not gray_levels(torch.zeros(1, 3, 4), LEVELS).any()


def test_large_images_are_scaled_down_for_the_texture_alone() -> None:
    method, image = make_method("hex", texture_side=6), make_batch().image
    seen: list[Tensor] = []
    method.texture.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method.texture_features(image)
    luma = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    squares = luma.view(len(image), 6, SIDE // 6, 6, SIDE // 6).mean((2, 4))
    torch.testing.assert_close(seen[0], squares)


# --- the projection


def projected(x: Tensor, basis: Tensor) -> Tensor:
    """(I - G (G'G)^-1 G') X, as equation 4 of the paper has it."""
    inverse = torch.linalg.inv(basis.T @ basis)
    return (torch.eye(len(x), dtype=torch.float64) - basis @ inverse @ basis.T) @ x


def all_ones(x: Tensor, basis: Tensor) -> Tensor:
    """A public re-implementation: all ones minus P."""
    q, _ = torch.linalg.qr(basis)
    return (1.0 - q @ q.T) @ x


def test_what_is_left_is_orthogonal_to_the_basis() -> None:
    x, basis = random(20, 4), random(20, 5, seed=1)
    torch.testing.assert_close(basis.T @ project_out(x, basis), torch.zeros(5, 4).double(), rtol=0.0, atol=1e-12)
    assert (basis.T @ all_ones(x, basis)).abs().max() > 1.0
    torch.testing.assert_close(project_out(basis, basis), torch.zeros(20, 5).double(), rtol=0.0, atol=1e-12)


def test_the_projection_and_its_gradients_are_the_papers() -> None:
    x, basis = random(20, 4).requires_grad_(), random(20, 5, seed=1).requires_grad_()
    weight = random(20, 4, seed=2)
    own, expected = project_out(x, basis), projected(x, basis)
    torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-12)
    grads = torch.autograd.grad((own * weight).sum(), [x, basis])
    for mine, other in zip(grads, torch.autograd.grad((expected * weight).sum(), [x, basis]), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_dependent_basis_projects_on_what_it_spans_with_finite_gradients(rank: int) -> None:
    x = random(20, 4).requires_grad_()
    basis = (random(20, rank, seed=1) @ random(rank, 5, seed=2)).requires_grad_()
    left = project_out(x, basis)
    torch.testing.assert_close(left, x - basis @ torch.linalg.pinv(basis, rtol=1e-9) @ x, rtol=1e-6, atol=1e-6)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(left.square().sum(), [x, basis]))


def test_the_projection_keeps_full_precision_under_autocast() -> None:
    x, basis = random(40, 4).float(), random(40, 5, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        left = project_out(x, basis)
    assert left.dtype == torch.float32
    assert (basis.T @ left).abs().max() < 1e-4


# --- the method


def features_of(w: dict[str, Tensor], image: Tensor, training: bool = True) -> Tensor:
    """The pooled features of LNL's net."""
    identity = {"net.model.fc.weight": torch.eye(64).double(), "net.model.fc.bias": torch.zeros(64).double()}
    return lnl_net({**w, **identity}, image, training)[0]


def unit_columns(x: Tensor) -> Tensor:
    return torch.stack([column / torch.sqrt((column**2).sum().clamp(min=1e-12)) for column in x.T], 1)


def parts(w: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """h, F_A and F_G as the paper has them."""
    gray = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    texture = replica_texture(gray, w["texture.phi_a"], w["texture.phi_b"]).flatten(1)
    g = unit_columns((texture @ w["summary.weight"].T + w["summary.bias"]).clamp(min=0.0))
    h = unit_columns(features_of(w, image))
    w_h, w_g = w["last.weight"][:, :64], w["last.weight"][:, 64:]
    return h, h @ w_h.T + g @ w_g.T + w["last.bias"], g @ w_g.T + w["last.bias"]


def test_the_loss_is_the_papers_with_gradients_through_the_projector() -> None:
    method, batch = make_method("hex"), make_batch(6)
    w = weights(method)
    _, both, alone = parts(w, batch.image)
    expected = cross_entropy(projected(both, alone), batch.label)
    names = tuple(name for name, _ in method.named_parameters())
    assert_same_gradients(method, method("main", batch, clock())["loss"], expected, w, names, atol=1e-7)


def test_the_replica_tells_the_wrong_projector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hex_module, "project_out", all_ones)
    with pytest.raises(AssertionError):
        test_the_loss_is_the_papers_with_gradients_through_the_projector()


def test_the_replica_tells_a_step_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NGLCM, "forward", lambda self, gray: replica_texture(gray, self.phi_a, self.phi_b, step=False))
    with pytest.raises(AssertionError):
        test_the_loss_is_the_papers_with_gradients_through_the_projector()


def test_invariants_of_the_projected_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """F_G' F_L = 0, and F_L = (I - P) h W_h: the bias and W_g reach the loss through the projector alone."""
    method, batch = make_method("hex"), make_batch(6)
    seen: list[Tensor] = []

    def watched(both: Tensor, alone: Tensor) -> Tensor:
        seen.extend([project_out(both, alone), both, alone])
        return seen[0]

    monkeypatch.setattr(hex_module, "project_out", watched)
    method("main", batch, clock())
    left, both, alone = seen
    h, _, _ = parts(weights(method), batch.image)
    w_h = method.last.weight[:, :64]
    torch.testing.assert_close(alone.T @ left, torch.zeros(3, 3).double(), rtol=0.0, atol=1e-10)
    torch.testing.assert_close(left, projected(h @ w_h.T, alone), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(both - alone, h @ w_h.T, rtol=1e-6, atol=1e-8)


def test_every_parameter_is_reached() -> None:
    method = make_method("hex")
    grads = torch.autograd.grad(method("main", make_batch(6), clock())["loss"], list(method.parameters()))
    for (name, _), grad in zip(method.named_parameters(), grads, strict=True):
        assert grad.any(), name


def test_where_texture_says_nothing_the_loss_is_that_of_the_normalised_features() -> None:
    method, batch = make_method("hex"), make_batch(6)
    method.last.weight.data[:, 64:].zero_()
    w = weights(method)
    expected = cross_entropy(unit_columns(features_of(w, batch.image)) @ w["last.weight"][:, :64].T, batch.label)
    assert_same_gradients(method, method("main", batch, clock())["loss"], expected, w, ("net.",))


def test_the_prediction_does_not_depend_on_texture() -> None:
    method, image = make_method("hex").eval(), make_batch().image
    before = method.predict(image)
    for parameter in (*method.texture.parameters(), *method.summary.parameters()):
        parameter.data.normal_(generator=torch.Generator().manual_seed(0))
    method.last.weight.data[:, 64:].fill_(9.0)
    assert torch.equal(method.predict(image), before)


def test_the_norms_are_those_of_a_batch_of_training_images() -> None:
    bench = Bench(HEX)
    method = bench.fit(epochs=1).fit.method
    with quiet(method):
        h = method.net.features(bench.view().image(slice(None)))
        images = torch.tensor([[sum(float(value) ** 2 for value in column) for column in h.T]])
        expected = (images * bench.batch_size / len(h)).sqrt().clamp(min=1e-6)
        torch.testing.assert_close(method.norms, expected[0], rtol=1e-5, atol=1e-7)
        assert method.batch_size == bench.batch_size == 34


def test_stored_norms_predict_what_a_test_batch_normalised_by_itself_would() -> None:
    """The paper's prediction differs by no more than its norms do, and names the same classes."""
    bench = Bench(HEX)
    method = bench.fit(epochs=15).fit.method
    assert isinstance(method, HEX)
    with quiet(method):
        image = bench.view(bench.val).image(slice(0, 34))
        ours = method.predict(image)
        h = method.net.features(image)
        own_norms = h.square().sum(0).sqrt().clamp(min=1e-6)
        theirs = F.linear(h / own_norms, method.last.weight[:, : method.net.dim], method.last.bias)
        apart = (own_norms / method.norms - 1.0)[own_norms > 1e-6].abs().max()
        bound = apart * (h / own_norms).abs() @ method.last.weight[:, : method.net.dim].abs().T
    assert apart < 0.8
    assert bool(((ours - theirs).abs() <= bound + 1e-4).all())
    assert (ours - theirs).abs().mean() < 0.2 * (theirs - theirs.mean(1, keepdim=True)).abs().mean()
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() > 0.9


def test_more_classes_than_texture_can_span_are_refused() -> None:
    task = replace(make_task(sees_bias=False), classes=34)
    with pytest.raises(ZooError, match="at most 33 classes; there are 34"):
        HEX(BackboneFactory("mlp", 34, task.image_shape, "none", 0), task, HEX.Config())


def test_a_batch_that_would_be_projected_away_is_refused() -> None:
    method = make_method("hex")
    with pytest.raises(ZooError, match="batches of more than 3 images"):
        method("main", make_batch(3), clock())
    assert torch.isfinite(method("main", make_batch(4), clock())["loss"])


def test_the_head_begins_as_the_authors() -> None:
    method = make_method("hex")
    for layer in (method.summary, method.last):
        assert isinstance(layer, nn.Linear)
        assert layer.weight.abs().max() <= 0.2
        assert float(layer.weight.detach().std()) == pytest.approx(0.088, abs=0.01)  # 0.1, cut off at two deviations
        assert not layer.bias.any()
    thresholds = torch.cat([method.texture.phi_a, method.texture.phi_b]).detach()
    assert 0.0 <= float(thresholds.min()) < 2.0 < 14.0 < float(thresholds.max()) < LEVELS


def test_the_recipe_is_complete() -> None:
    (recipe,) = HEX.recipes
    assert recipe.settings.missing() == []
    assert (recipe.settings.batch_size or 0) >= HEX.min_batch
