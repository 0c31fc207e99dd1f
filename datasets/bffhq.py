"""BFFHQ: young women and old men (Kim et al., BiaSwap, ICCV 2021), in the layout of DFA (Lee et al., NeurIPS 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset, Listing

from .photographs import Row, images_in, training


class BFFHQ(FileDataset):
    """The label is the age, young or old, the bias the sex: nearly all young faces are women's, all old ones men's.

    Half of the test images are bias-conflicting. DFA reports the accuracy on those alone, which is the bias-conflicting
    accuracy here; DeNetDM that on all. Training images with other labels than their folder says are refused.
    """

    name = "bffhq"
    version = 1
    title = "BFFHQ: sex tells young from old in all but a few training images"
    bias_attribute = "sex"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``bffhq:conflict=0.01``."""

        conflict: Literal["0.005", "0.01", "0.02", "0.05"] = Field(
            "0.005", description="share of bias-conflicting training images: the folder 0.5pct, 1pct, 2pct, 5pct"
        )

    @property
    def card(self) -> Card:
        """The data card."""
        size = self.params.size
        return Card(
            title=self.title,
            about="19,200 training, 1,000 validation and 1,000 test faces of FFHQ, 128 x 128 pixels.",
            citation="Kim, Lee and Choo. BiaSwap. ICCV 2021; Lee, Kim, Lee, Lee and Choo. Learning Debiased "
            "Representation via Disentangled Feature Augmentation. NeurIPS 2021, arXiv:2107.01372.",
            url="https://github.com/kakaoenterprise/Learning-Debiased-Disentangled",
            licence="CC BY-NC-SA 4.0 (FFHQ)",
            origin="the archive of DFA's authors",
            classes=("young", "old"),
            biases=("female", "male"),
            aligned=((0,), (1,)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="cifar",
            training=training(4),
            eval_splits=("val", "test"),
            folder="bffhq",
            get="Take bffhq of the folder that its page links, and unpack it: bffhq/0.5pct/align/0/..., "
            "bffhq/0.5pct/conflict/0/..., bffhq/valid/... and bffhq/test/...",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Files by name; ``<id>_<age>_<sex>.png`` tells the label and the bias."""
        folder = self.folder(root)
        part = folder / f"{float(self.params.conflict) * 100:g}pct"
        train: list[Row] = []
        for kind in ("align", "conflict"):
            for label in (0, 1):
                own = [row_of(file) for file in images_in(part / kind / str(label))]
                if wrong := [row for row in own if row[1] != label or (row[1] == row[2]) != (kind == "align")]:
                    raise ZooError(f"bffhq: {wrong[0][0]} does not belong into {kind}/{label}")
                train += own
        rows = {"train": train, "val": _flat(folder / "valid"), "test": _flat(folder / "test")}
        return {split: Listing.of(found) for split, found in rows.items()}


def _flat(folder: Path) -> list[Row]:
    return [row_of(file) for file in images_in(folder)]


def row_of(file: Path) -> Row:
    """File, label and bias: the last two parts of its name."""
    parts = file.stem.split("_")
    if len(parts) < 3 or parts[-2] not in ("0", "1") or parts[-1] not in ("0", "1"):
        raise ZooError(f"bffhq: {file} is not called ID_AGE_SEX with 0 or 1 for both")
    return file, int(parts[-2]), int(parts[-1])
