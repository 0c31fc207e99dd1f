"""ERM: empirical risk minimisation, the baseline that learns the bias."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from debias_zoo.method import Batch, Clock, Method, Paper, Recipe

from .losses.precision import wide
from .schedules import CELEBA, LFF_CMNIST, LNL_CMNIST, REBIAS_MNIST, WATERBIRDS


class ERM(Method):
    """Minimise the mean cross-entropy, L = mean_i CE(f(x_i), y_i), over all parameters; no bias labels."""

    name = "erm"
    version = 1
    is_baseline = True
    paper = Paper(
        title="Principles of Risk Minimization for Learning Theory",
        authors="Vapnik",
        venue="NeurIPS",
        year=1991,
    )
    recipes = (
        Recipe(
            protocol="paper",
            dataset="cmnist",
            source="Baseline of LNL: feidfoe/learning-not-to-learn, baseline_train.sh, option.py",
            backbone="lnl_convnet",
            normalize="cifar",
            settings=LNL_CMNIST,
        ),
        Recipe(
            protocol="paper",
            dataset="cmnist-lff",
            source="Vanilla of LfF, the ERM of DeNetDM's Table 1: alinlab/LfF, config.py, module/mlp.py",
            backbone="mlp",
            backbone_options={"depth": 3, "width": 100},
            normalize="bytes",
            settings=LFF_CMNIST,
        ),
        Recipe(
            protocol="paper",
            dataset="biased-mnist",
            source="Vanilla of ReBias: clovaai/rebias, main_biased_mnist.py",
            backbone="simple_convnet",
            backbone_options={"kernel": 7},
            normalize="half",
            settings=REBIAS_MNIST,
        ),
        *(
            Recipe(
                protocol="paper",
                dataset=dataset,
                source="ERM of Group-DRO: Sagawa et al., ICLR 2020, appendix C.2",
                backbone="resnet50",
                pretrained=True,
                normalize="imagenet",
                settings=settings,
                deviations=("the last epoch is kept; the paper keeps the best on validation",),
            )
            for dataset, settings in (("waterbirds", WATERBIRDS), ("celeba", CELEBA))
        ),
    )

    def forward(self, loss: str, batch: Batch, clock: Clock) -> dict[str, Tensor]:
        return {"loss": F.cross_entropy(wide(self.net(batch.image)), batch.label)}
