"""IMDB-Face with an extreme bias of age and sex, as in Learning Not to Learn (Kim et al., CVPR 2019)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from debias_zoo.dataset import Card
from debias_zoo.errors import ZooError
from debias_zoo.files import FileDataset, Listing, integers, read_table

from .faces import Face, aligned, extreme_bias, names
from .photographs import training

TABLE = "faces.csv"


class IMDBFace(FileDataset):
    """Train on young women and old men (EB1) or the opposite (EB2); test on the other, and on faces of all kinds.

    The bias of ``label=gender`` is the age in three periods, that of ``label=age`` (twelve classes) is the sex. The
    test is the other extreme set, the split ``unbiased`` the authors' test list. Every tenth image of a group is
    ``val``.

    Differs from the authors' files: their two .npy files hold pickled dictionaries, which could run code when they are
    read; a table takes their place.
    """

    name = "imdb-face"
    version = 1
    title = "IMDB-Face (LNL): age tells the sex in training, or sex the age"
    bias_attribute = "age or sex"

    class Params(FileDataset.Params):
        """What can be chosen on the command line, as in ``imdb-face:train=eb2,label=age``."""

        train: Literal["eb1", "eb2"] = Field(
            "eb1", description="eb1: women up to 29 and men from 40; eb2: the opposite"
        )
        label: Literal["gender", "age"] = Field("gender", description="what is learnt; the other is the bias")

    @property
    def card(self) -> Card:
        """The data card."""
        size, (classes, biases) = self.params.size, names(self.params.label)
        return Card(
            title=self.title,
            about="Cropped faces of IMDB-WIKI whose age and sex LNL's authors checked.",
            citation="Kim, Kim, Kim, Kim and Kim. Learning Not to Learn. CVPR 2019, arXiv:1812.10352; images: Rothe, "
            "Timofte and Van Gool, IMDB-WIKI, IJCV 2018.",
            url="https://github.com/feidfoe/learning-not-to-learn",
            licence="academic research only (IMDB-WIKI)",
            origin="IMDB-WIKI's imdb_crop; the authors' lists",
            classes=classes,
            biases=biases,
            aligned=aligned(self.params.label, self.params.train),
            image_shape=(3, size, size),
            backbone="resnet18",
            normalize="imagenet",
            training=training(4, crop=False),
            eval_splits=("val", "test", "unbiased"),
            test_splits=("test", "unbiased"),
            folder="imdb-face",
            get="Unpack imdb_crop.tar of https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/ as imdb_crop/ there. The "
            "authors' imdb_age_gender.npy and imdb_split.npy (linked in dataset/IMDB/README.md of "
            "https://github.com/feidfoe/learning-not-to-learn) are pickled: write them anew as faces.csv with the "
            "columns file (relative to imdb_crop/), age, gender (0 female, 1 male) and split (train or test).",
        )

    def listings(self, root: Path | None) -> dict[str, Listing]:
        """The rows of ``faces.csv``, in their order."""
        csv = self.folder(root) / TABLE
        table = read_table(csv, ("file", "age", "gender", "split"))
        if others := sorted(set(table["split"]) - {"train", "test"}):
            raise ZooError(f"{csv}: split is train or test, not {others[0]!r}")
        rows = zip(table["file"], integers(table, "age", csv), integers(table, "gender", csv), strict=True)
        faces = [Face(csv.parent / "imdb_crop" / file, int(age), int(sex)) for file, age, sex in rows]
        if wrong := [face for face in faces if face.sex not in (0, 1) or not 0 <= face.age <= 120]:
            raise ZooError(f"{csv}: {wrong[0].file.name} has age {wrong[0].age} and gender {wrong[0].sex}")
        pool = [face for face, split in zip(faces, table["split"], strict=True) if split == "train"]
        others = [face for face, split in zip(faces, table["split"], strict=True) if split == "test"]
        return extreme_bias(pool, others, self.params.label, self.params.train)
