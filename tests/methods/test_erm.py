from __future__ import annotations

from replicas import assert_same_gradients, clock, cross_entropy, lnl_net, make_batch, make_method, weights


def test_is_the_mean_cross_entropy() -> None:
    method, batch = make_method("erm"), make_batch()
    w = weights(method)
    replica = cross_entropy(lnl_net(w, batch.image)[0], batch.label)
    assert_same_gradients(method, method("main", batch, clock())["loss"], replica, w, ("net.",))
