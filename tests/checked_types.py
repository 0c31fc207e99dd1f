"""The whole test run checks what annotations say: types by beartype, shapes of tensors by jaxtyping.

Left out are modules that import names of their annotations for the type checker alone, so that ``--help`` needs no
torch: those names are not there when a function is called.
"""

from __future__ import annotations

from pathlib import Path

from beartype import BeartypeConf, beartype
from beartype.claw import beartype_package
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).resolve().parent.parent / "debias_zoo"

LEFT_OUT = {
    "debias_zoo.api": "refuses what is of another type itself, in words; tests hand it such things",
    "debias_zoo.fitting": "the same",
    "debias_zoo.nets": "torch.compile traces its passes, with tensors that have no data",
}

CONF = BeartypeConf(is_random=False, is_pep484_tower=True, claw_is_pep526=False)
"""Of a list the first item is checked: to draw one would move the global generator, which no method may."""

checker = beartype(conf=CONF)
"""What jaxtyping checks types with."""


def checked_modules() -> list[str]:
    """Names of all modules of the package but those left out; not of packages, which would name all inside them."""
    parts = (PACKAGE, *(PACKAGE / part for part in ("methods", "datasets", "reports", "testing")))
    every = [path for part in parts for path in modules_below(part)]
    names = {name_of(path) for path in every if "if TYPE_CHECKING:" not in path.read_text()}
    return sorted(names - LEFT_OUT.keys())


def modules_below(folder: Path) -> list[Path]:
    """Modules of a package and, in ``methods``, of the packages in it."""
    found = folder.glob("**/*.py" if folder.name == "methods" else "*.py")
    return [path for path in found if path.name != "__init__.py"]


def name_of(path: Path) -> str:
    """A module's name."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def path_of(name: str) -> Path:
    """Of a module."""
    return PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")


def check_types() -> None:
    """From here on; modules that are imported already are not checked. Shapes cost twice the time at import."""
    names = checked_modules()
    shaped = [name for name in names if "from jaxtyping import" in path_of(name).read_text()]
    install_import_hook(shaped, f"{__name__}.checker")
    for name in set(names) - set(shaped):
        beartype_package(name, conf=CONF)
