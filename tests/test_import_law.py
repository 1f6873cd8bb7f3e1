"""What may be imported when: vendors' libraries never, torch only by what trains, nothing from above."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("tensorrt", "pynvml", "ray", "tensorboard", "playwright", "pandas")
"""Not installed everywhere, or a vendor's: every module must do without them when it is imported."""
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "scipy", "matplotlib")
"""Installed, but slow to import."""
TRAINS = ("dsonas_hw.search", "dsonas_hw.train")
"""The only packages that import torch at the top of a file."""

LAYERS = [
    "kernel",
    "device",
    "cost",
    "profile",
    "space",
    "architecture",
    "search",
    "train",
    "deploy",
    "report",
]
"""Each may import those before it. `cost` says what a latency model is, `profile` has the models."""
ALLOWED_UPWARDS = {("search", "train"), ("report", "study")}
"""The loop and the images of `train` serve the search too; the page of a study reads its files."""
VENDORS = {
    "tensorrt": "dsonas_hw/profile/tensorrt",
    "pynvml": "dsonas_hw/device/nvml",
    "ray": "dsonas_hw/study/ray_engine",
}
"""Library → how the path of the files that import it begins."""


def list_modules() -> list[str]:
    folders = {"dsonas_hw": ROOT / "dsonas_hw", "dsonas_hw.cli": ROOT / "cli"}
    names = []
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
            names.append(".".join([package, *parts]))
    return [name for name in names if not name.endswith("__main__")]


def import_without(modules: list[str], blocked: tuple[str, ...]) -> None:
    """Import modules in a new interpreter in which some others cannot be imported."""
    code = f"""
import importlib, sys
for name in {blocked!r}:
    sys.modules[name] = None
for name in {modules!r}:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(f"{{name}}: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_every_module_does_without_what_is_optional() -> None:
    modules = list_modules()
    assert len(modules) > 100
    import_without(modules, OPTIONAL)


def test_only_what_trains_needs_torch() -> None:
    light = [name for name in list_modules() if not name.startswith(TRAINS)]
    import_without(light, (*HEAVY, *OPTIONAL))


@cache
def imported_names(path: Path) -> list[str]:
    """Modules that a file imports, at the top or in a function, but not those for type checkers only."""
    names: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    above = {
        f"dsonas_hw.{name}"
        for name in (*LAYERS[LAYERS.index(layer) + 1 :], "study", "run", "cli")
        if (layer, name) not in ALLOWED_UPWARDS
    }
    for path in (ROOT / "dsonas_hw" / layer).rglob("*.py"):
        wrong = [
            name for name in imported_names(path) if any((name + ".").startswith(a + ".") for a in above)
        ]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_s_library_is_imported_in_one_place(vendor: str) -> None:
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in ("dsonas_hw", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if any(name.split(".")[0] == vendor for name in imported_names(path))
        or f'require("{vendor}"' in path.read_text()
        or f'import_module("{vendor}"' in path.read_text()
    ]
    assert all(name.startswith(VENDORS[vendor]) for name in files), files
