"""UTKFace with a bias of sex, age or race: mostly aligned groups, or LNL's extreme sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from debias_zoo.dataset import Card
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset, Listing
from debias_zoo.seeds import seed_for

from .faces import Face, aligned, extreme_bias, names
from .photographs import Row, held_out, images_in, training

TEST_SHARE = 0.2
Known = tuple[Path, int, int, int]
"""File, age, sex (0 male), race."""

VALUES = {"gender": ("male", "female"), "race": ("white", "other"), "age": ("20 and older", "10 and younger")}
"""Of each attribute, 0 and 1; faces between two ages are left out where age counts."""


class UTKFace(FileDataset):
    """Faces whose file names tell age, sex and race.

    ``train=biased``, as Biased-UTKFace in vb-mitigator: a fifth of the faces, at random, is the test; of the others all
    are kept in which label and bias are both 0 or both 1, and of each bias so many with the other label as are a share
    1 - ``rate`` of those. ``train=eb1`` and ``eb2`` are the extreme sets of ``imdb-face``, with the random
    fifth as ``unbiased``. Every tenth training image of a group is ``val``.

    Differs from vb-mitigator: its published random split is a pickle; here the split is drawn by ``data_seed``.
    """

    name = "utkface"
    version = 1
    title = "UTKFace: race or age goes with the sex in training"
    bias_attribute = "race, age or sex"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``utkface:bias=age`` or ``utkface:train=eb1,label=age``."""

        train: Literal["biased", "eb1", "eb2"] = Field("biased", description="mostly aligned, or LNL's extreme sets")
        label: Literal["gender", "age", "race"] = Field("gender", description="what is learnt")
        bias: Literal["gender", "age", "race"] = Field("race", description="the bias, for train=biased")
        rate: float = Field(0.9, gt=0.5, le=1, description="1 - rate: conflicting over aligned, for train=biased")
        data_seed: int = Field(0, ge=0, description="of the test faces and of those that are left out")

        @model_validator(mode="after")
        def _different(self) -> Any:
            if self.train == "biased" and self.label == self.bias:
                raise ValueError("label and bias must be different attributes")
            if self.train != "biased" and self.label == "race":
                raise ValueError("the extreme sets are of age and gender: label=gender or label=age")
            return self

    @property
    def card(self) -> Card:
        """The data card."""
        size, label, train = self.params.size, self.params.label, self.params.train
        extreme = train != "biased"
        classes, biases = names(label) if extreme else (VALUES[label], VALUES[self.params.bias])
        return Card(
            title=self.title,
            about="23,708 aligned and cropped faces, 200 x 200 pixels, with age, sex and race in their names.",
            citation="Zhang, Song and Qi. Age Progression/Regression by Conditional Adversarial Autoencoder. CVPR "
            "2017.",
            url="https://susanqq.github.io/UTKFace/",
            licence="non-commercial research only",
            origin="the authors' archive of aligned and cropped faces",
            classes=classes,
            biases=biases,
            aligned=aligned(label, train) if extreme else ((0,), (1,)),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(4, crop=False),
            eval_splits=("val", "test", "unbiased") if extreme else ("val", "test"),
            test_splits=("test", "unbiased") if extreme else ("test",),
            folder="UTKFace",
            get="Take UTKFace.tar.gz (Aligned&Cropped Faces) of its page and unpack it: "
            "UTKFace/25_1_2_20170116174525125.jpg.chip.jpg ...",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """Faces by name; the three whose name lacks the race, and others that do not follow the rule, are left out."""
        faces = [(file, *facts) for file in images_in(self.folder(root)) if (facts := read_name(file)) is not None]
        if not faces:
            raise ZooError(f"utkface: no image in {self.folder(root)} is called AGE_GENDER_RACE_DATE.jpg")
        order = np.random.default_rng(seed_for(self.name, "split", self.params.data_seed)).permutation(len(faces))
        first = round(TEST_SHARE * len(faces))
        test, pool = ([faces[k] for k in sorted(rows)] for rows in (order[:first], order[first:]))
        if self.params.train == "biased":
            return self._biased(pool, test)
        young = [[Face(file, age, 1 - sex) for file, age, sex, _ in part] for part in (pool, test)]  # here 0 is male
        return extreme_bias(young[0], young[1], self.params.label, self.params.train)

    def _biased(self, pool: list[Known], test: list[Known]) -> dict[str, Listing]:
        def rows(faces: list[Known]) -> list[Row]:
            found = []
            for file, age, sex, race in faces:
                known = {"gender": sex, "race": int(race != 0), "age": 0 if age >= 20 else 1 if age <= 10 else None}
                label, bias = known[self.params.label], known[self.params.bias]
                if label is not None and bias is not None:
                    found.append((file, label, bias))
            return found

        random = np.random.default_rng(seed_for(self.name, "left out", self.params.data_seed))
        given = rows(pool)
        kept = [row for row in given if row[1] == row[2]]
        for bias in (0, 1):
            others = [row for row in given if row[2] == bias != row[1]]
            count = round((1 - self.params.rate) * sum(row[2] == bias for row in kept if row[1] == bias))
            kept += [others[k] for k in sorted(random.permutation(len(others))[:count])]
        train, val = held_out(sorted(kept))
        return {split: Listing.of(found) for split, found in (("train", train), ("val", val), ("test", rows(test)))}


def read_name(file: Path) -> tuple[int, int, int] | None:
    """Age, sex (0 male, 1 female) and race (0 ... 4) in a file's name; None where it does not tell them."""
    parts = file.name.split("_")
    if len(parts) != 4 or not all(part.isdecimal() for part in parts[:3]):
        return None
    age, sex, race = (int(part) for part in parts[:3])
    return (age, sex, race) if sex < 2 and race < 5 and age <= 120 else None
