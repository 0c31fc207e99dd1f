"""Training settings that papers share with those they compare against, each with its source."""

from __future__ import annotations

from debias_zoo.method import Settings

LNL_CMNIST = Settings(
    epochs=100,
    batch_size=128,
    optimizer="sgd",
    lr=0.01,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    step_epochs=40,
    gamma=0.1,
)
"""LNL's baseline on Colored MNIST (feidfoe/learning-not-to-learn: ``option.py``, ``baseline_train.sh``)."""

REBIAS_MNIST = Settings(
    epochs=80,
    batch_size=256,
    optimizer="adam",
    lr=1e-3,
    momentum=0.9,
    weight_decay=1e-4,
    schedule="step",
    step_epochs=20,
    gamma=0.1,
)
"""All methods of ReBias's comparison on Biased-MNIST (clovaai/rebias: ``main_biased_mnist.py``)."""

LFF_CMNIST = Settings(
    epochs=100, batch_size=256, optimizer="adam", lr=1e-3, momentum=0.9, weight_decay=0.0, schedule="constant"
)
"""LfF and its baseline on its Colored MNIST (alinlab/LfF: ``config.py``): 235 steps, a hundred times."""

DFA_CMNIST = Settings(
    epochs=213,
    batch_size=256,
    optimizer="adam",
    lr=1e-2,
    momentum=0.9,
    weight_decay=0.0,
    schedule="step",
    step_epochs=43,
    gamma=0.5,
)
"""DFA on LfF's Colored MNIST (kakaoenterprise/Learning-Debiased-Disentangled: ``run_cmnist_ours.sh``).

In epochs of 235 steps: 50,000 steps, the rate halved every 10,000; DFA itself begins to count after its warm-up.
"""

WATERBIRDS = Settings(
    epochs=300, batch_size=128, optimizer="sgd", lr=1e-3, momentum=0.9, weight_decay=1e-4, schedule="constant"
)
"""ERM's settings on Waterbirds (Sagawa et al., ICLR 2020, appendix C.2)."""

CELEBA = Settings(
    epochs=50, batch_size=128, optimizer="sgd", lr=1e-4, momentum=0.9, weight_decay=1e-4, schedule="constant"
)
"""ERM's settings on CelebA, blond hair (Sagawa et al., ICLR 2020, appendix C.2)."""

SHRESTHA_CELEBA = Settings(weight_decay=1e-5).over(CELEBA)
"""RUBi and spectral decoupling on CelebA (Shrestha et al., WACV 2022; erobic/bias-mitigators: ``scripts/celebA``).

On ResNet-18, not pre-trained.
"""

BALANCING = (
    "rate, weight decay and batch size, which the paper chooses by worst validation group, are those of ERM in "
    "Group-DRO's paper; the last epoch is kept"
)
"""In what the recipes of the balancing methods (Idrissi et al., CLeaR 2022) differ from their paper."""
