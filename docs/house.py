"""What imports what: the files of the core in parts, and the arrows between the parts, read from the source.

Only what is not said by other arrows is drawn: an arrow from A to C is left out where one goes from A over B to C.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PARTS: Mapping[str, tuple[str, ...]] = {
    "Command line": ("__main__", "checking", "cli", "cli_*", "listing", "scaffold"),
    "Run": ("driver", "estimate", "progress"),
    "Tune": ("tune", "tune_driver", "search_space"),
    "From Python": ("api", "fitting", "runs"),
    "Export": ("bounded", "exported", "exporting", "loading", "model_card", "onnx_model", "predictor"),
    "Data": ("data", "preview"),
    "Look inside": ("explain", "gradcam", "heatsheet", "maps", "probes"),
    "Checks": ("testing/*",),
    "Grid": ("grid", "gridfile", "feasibility", "recipes", "yaml_files"),
    "Executors": ("executor_*", "remote", "slots", "threads", "worker"),
    "One trial": (
        "assembly",
        "augment",
        "common_stage",
        "course",
        "engine",
        "layouts",
        "plans",
        "runner",
        "shared",
        "stacking",
        "trainer",
    ),
    "Contracts": ("arrays", "cache", "dataset", "decode", "executors", "files", "method", "sources", "tracking"),
    "Registry": ("plugin_files", "registry", "source_facts"),
    "Backbones": ("backbones", "nets", "timm_models", "torchvision_guard", "weights"),
    "Store": ("inventory", "metrics", "store", "trial"),
    "Ground": (
        "cli_shared",
        "devices",
        "errors",
        "interrupts",
        "plain_text",
        "protocol",
        "seeds",
        "validated",
        "writing",
    ),
}
"""The core by part, as patterns of file names; a name stands in the first part that has exactly it, or else fits."""

HANDS_OUT = frozenset({"registry"})
"""Files that find classes of the parts above them by name: what they import in a function is what they hand out."""

WINGS = ("methods", "datasets", "reports")
"""The top-level folders; each is a part, and its files are not shown one by one."""


@dataclass(frozen=True)
class House:
    """Parts and what they import.

    Attributes:
        files: names of the files of each part of the core, in order; a wing has none.
        arrows: from a part to those that its files import, all of them, itself left out.
        about: first sentence of a file's docstring.
    """

    files: Mapping[str, tuple[str, ...]]
    arrows: Mapping[str, frozenset[str]]
    about: Mapping[str, str]

    def shown(self) -> list[tuple[str, str]]:
        """The arrows that do not follow from others."""
        return [
            (start, end)
            for start in self.arrows
            for end in sorted(self.arrows[start])
            if not any(end in self.reached(middle) for middle in self.arrows[start] - {end})
        ]

    def reached(self, start: str) -> frozenset[str]:
        """All parts that ``start`` imports, and those that they import, and so on."""
        found: set[str] = set()
        waiting = [start]
        while waiting:
            new = self.arrows[waiting.pop()] - found
            found |= new
            waiting += sorted(new)
        return frozenset(found)

    def level(self, part: str) -> int:
        """How many arrows the longest way down from a part has; raises a ValueError where the ways form a circle."""
        if part in self.reached(part):
            raise ValueError(f"what {part!r} imports imports {part!r}: say in docs/house.py where its files belong")
        return max((1 + self.level(below) for below in self.arrows[part]), default=0)


@lru_cache(maxsize=1)
def house() -> House:
    """The house as its source says."""
    core = {name: path for name, path in _core() if part_of(name)}
    parts = {name: part_of(name) for name in core}
    files = {part: tuple(name for name in core if parts[name] == part) for part in PARTS}
    arrows: dict[str, set[str]] = {part: set() for part in (*PARTS, *WINGS)}
    for name, path in core.items():
        package = ".".join(["debias_zoo", *name.split("/")[:-1]])
        known = imported(path, package, types=False, late=name not in HANDS_OUT)
        arrows[parts[name]] |= set(_parts(known, parts)) - {parts[name]}
    for wing in WINGS:
        for path in sorted((ROOT / wing).rglob("*.py")):
            package = ".".join(["debias_zoo", *path.relative_to(ROOT).parent.parts])
            arrows[wing] |= set(_parts(imported(path, package, types=False), parts)) - {wing}
    about = {name: _about(path) for name, path in core.items()}
    return House(files, {part: frozenset(found) for part, found in arrows.items()}, about)


def unsorted() -> list[str]:
    """Files of the core that ``PARTS`` does not name, and the drawing therefore leaves out; a test wants none."""
    return [name for name, _ in _core() if not part_of(name)]


def part_of(name: str) -> str:
    """The part of a file of the core; "" for one that is in none."""
    for part, patterns in PARTS.items():
        if name in patterns:
            return part
    for part, patterns in PARTS.items():
        if any(fnmatch(name, pattern) for pattern in patterns):
            return part
    return ""


def imported(path: Path, package: str, *, types: bool = True, late: bool = True) -> set[str]:
    """Absolute names of all modules of ours that a file imports, wherever in it; also of names in modules.

    types: whether imports count that are for type checkers alone, and never happen. late: those in functions.
    """
    found = set()
    tree = ast.parse(path.read_text())
    left_out = [node for node in ast.walk(tree) if (not types and _for_types(node)) or (not late and _function(node))]
    unseen = {id(node) for block in left_out for node in ast.walk(block)}
    for node in [node for node in ast.walk(tree) if id(node) not in unseen]:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found.update([module, *(f"{module}.{alias.name}" for alias in node.names)])
    return {name for name in found if name.startswith("debias_zoo")}


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _core() -> Iterator[tuple[str, Path]]:
    """Files of the core by name, as ``trainer`` and ``testing/steps``; the package itself is none."""
    folder = ROOT / "debias_zoo"
    for path in sorted([*folder.glob("*.py"), *folder.glob("testing/*.py")]):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name != "__init__":
            yield name, path


def _parts(modules: set[str], parts: Mapping[str, str]) -> Iterator[str]:
    for module in modules:
        names = module.split(".")[1:]
        if names and names[0] in WINGS:
            yield names[0]
        elif names:
            known = parts.get("/".join(names[:2])) or parts.get(names[0])
            if names[0] == "testing":
                known = known or parts["testing/__init__"]
            if known:
                yield known


def _about(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())
