"""The house: who may know whom, the links, what the wheel holds, what a start imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from house import imported

from debias_zoo.registry import GROUPS, entries

ROOT = Path(__file__).resolve().parent.parent
WINGS = ("methods", "datasets", "reports")


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("wing", WINGS)
def test_wings_are_links_into_the_package(wing: str) -> None:
    link = ROOT / "debias_zoo" / wing
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{wing}"


def test_datasets_is_no_regular_package() -> None:
    assert not (ROOT / "datasets" / "__init__.py").exists(), "it would be imported for Hugging Face's datasets"


@pytest.mark.parametrize("wing", ["methods", "datasets"])
def test_methods_and_datasets_know_the_contracts_alone(wing: str) -> None:
    allowed = {"method", "dataset", "files", "cache", "decode", "backbones", "errors", "protocol", "seeds", wing}
    for path in files(wing):
        package = ".".join(["debias_zoo", *path.relative_to(ROOT).parent.parts])
        used = {name.split(".")[1] for name in imported(path, package) if "." in name}
        assert used <= allowed, f"{path.name} imports {used - allowed}"


def test_reports_read_the_store_and_nothing_else() -> None:
    allowed = {
        "store",
        "writing",
        "trial",
        "metrics",
        "errors",
        "protocol",
        "reports",
        "registry",
    }  # formats are registered
    for path in files("reports"):
        package = ".".join(["debias_zoo", *path.relative_to(ROOT).parent.parts])
        used = {name.split(".")[1] for name in imported(path, package) if "." in name}
        assert used <= allowed, f"{path.name} imports {used - allowed}"


def test_the_core_names_no_method_and_no_dataset() -> None:
    found = [*entries("method").values(), *entries("dataset").values()]
    names = {entry.name for entry in found if any(f".{wing}." in entry.target for wing in WINGS)}
    for path in files("debias_zoo"):
        if any(part in WINGS for part in path.relative_to(ROOT / "debias_zoo").parts):
            continue
        tree = ast.parse(path.read_text())
        docs = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}  # type: ignore[attr-defined]
        said = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
        }
        assert not said & names, f"{path.name} names {said & names}"
        modules = {
            name
            for name in imported(path, "debias_zoo")
            if name.startswith(("debias_zoo.methods", "debias_zoo.datasets"))
        }
        assert not modules, f"{path.name} imports {modules}"


def _has_docstring(node: ast.AST) -> bool:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    return isinstance(node, kinds) and bool(node.body) and ast.get_docstring(node, clean=False) is not None


def test_no_method_does_what_the_trainer_owns() -> None:
    for path in files("methods"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert called not in {"cuda", "item", "print", "open", "manual_seed", "backward", "step"}, (
                    f"{path}: {called}"
                )


@pytest.mark.parametrize(
    "command", [["--help"], *(["list", f"{kind}s"] for kind in GROUPS), ["list", "backbones", "--json"]]
)
def test_a_look_imports_no_torch(command: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['debias-zoo', *sys.argv[1:]]\n"
        "from debias_zoo.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'timm', 'pandas', 'pydantic', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout


def test_no_backbone_has_the_name_of_one_of_timm() -> None:
    from debias_zoo.timm_models import timm

    assert set(entries("backbone")) == {"lnl_convnet", "simple_convnet", "mlp", "resnet20"}
    assert not any(timm().is_model(name) for name in entries("backbone"))


def test_timm_is_not_imported_for_a_backbone_of_the_zoo() -> None:
    code = (
        "import sys\n"
        "import debias_zoo.runner, debias_zoo.stacking\n"
        "from debias_zoo.backbones import Backbone\n"
        "Backbone('mlp', 10, (3, 28, 28))\n"
        "assert not {'timm', 'torchvision'} & set(sys.modules)\n"
        "Backbone('resnet10t', 10, (3, 28, 28))\n"
        "assert 'timm' in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_the_wheel_holds_real_files(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    for path in [*files("methods"), *files("datasets"), *files("reports")]:
        assert held[f"debias_zoo/{path.relative_to(ROOT).as_posix()}"] == path.stat().st_size
    assert held["debias_zoo/datasets/data/mnist.npz"] > 11_000_000
    assert "debias_zoo/datasets/__init__.py" not in held
    assert not [name for name in held if name.startswith(("methods/", "datasets/", "tests/"))]
