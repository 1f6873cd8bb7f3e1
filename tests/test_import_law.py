"""What may be imported when: vendors' libraries never, torch only by what trains, nothing from above."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from dsonas_hw.runtime.registry import runtime_names

ROOT = Path(__file__).parents[1]
OPTIONAL = ("tensorrt", "pynvml", "ray", "tensorboard", "playwright", "pandas")
"""Not installed everywhere, or a vendor's: every module must do without them when it is imported."""
HEAVY = ("torch", "torchvision", "onnx", "onnxruntime", "sklearn", "scipy", "matplotlib")
"""Installed, but slow to import."""
TRAINS = ("dsonas_hw.search", "dsonas_hw.train")
"""The only packages that import torch at the top of a file."""

ROOMS = [
    "errors",
    "files",
    "target",
    "budget",
    "config",
    "checkpoint_file",
    "run_directory",
    "kernel",
    "device",
    "measure",
    "runtime",
    "table",
    "cost",
    "estimate",
    "space",
    "architecture",
    "profile",
    "train",
    "task",
    "search",
    "deploy",
    "study",
    "report",
    "pipeline",
    "cli",
]
"""The one order of all rooms: each imports those before it, and none after it."""
OF_NO_MACHINE = ("space", "architecture")
"""Rooms that know no device and no runtime, and measure nothing."""
MACHINES = ("device", "measure", "runtime", "profile")
VENDORS = {
    "tensorrt": "dsonas_hw/runtime/tensorrt",
    "pynvml": "dsonas_hw/device/nvml",
    "ray": "dsonas_hw/study/ray_engine",
}
"""Library → how the path of the files that import it begins."""


def find_modules() -> dict[str, Path]:
    """Module → its file."""
    folders = {"dsonas_hw": ROOT / "dsonas_hw", "dsonas_hw.cli": ROOT / "cli"}
    found = {}
    for package, folder in folders.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [part for part in path.relative_to(folder).with_suffix("").parts if part != "__init__"]
            found[".".join([package, *parts])] = path
    return {name: path for name, path in found.items() if not name.endswith("__main__")}


MODULES = find_modules()


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
    assert len(MODULES) > 100
    import_without(list(MODULES), OPTIONAL)


def test_only_what_trains_needs_torch() -> None:
    light = [name for name in MODULES if not name.startswith(TRAINS)]
    import_without(light, (*HEAVY, *OPTIONAL))


@cache
def imports_of(module: str, *, for_types: bool) -> frozenset[str]:
    """Modules of this package that a module imports, at the top or in a function.

    for_types: also those that only type checkers import.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if is_for_types and not for_types:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert not node.level, f"{module} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(names & MODULES.keys() or {node.module})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(MODULES[module].read_text()))
    return frozenset(name for name in found if name.startswith("dsonas_hw."))


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_the_order_names_every_room() -> None:
    assert sorted({room_of(name) for name in MODULES if name.count(".")}) == sorted(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    above = ROOMS[ROOMS.index(room) + 1 :]
    for module in MODULES:
        if module.count(".") and room_of(module) == room:
            wrong = [name for name in imports_of(module, for_types=True) if room_of(name) in above]
            assert not wrong, f"{module} imports {wrong}"


def test_spaces_and_architectures_know_no_machine() -> None:
    wrong = {
        (module.removeprefix("dsonas_hw."), name.removeprefix("dsonas_hw."))
        for module in MODULES
        if module.count(".") and room_of(module) in OF_NO_MACHINE
        for name in imports_of(module, for_types=True)
        if room_of(name) in MACHINES
    }
    assert not wrong


def test_no_modules_import_each_other() -> None:
    """An import inside a function hides a circle; it does not open it."""
    left = {name: set(imports_of(name, for_types=False)) & MODULES.keys() - {name} for name in MODULES}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    while unused := [name for name in left if not any(name in needed for needed in left.values())]:
        for name in unused:
            del left[name]
    assert not left


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_s_library_is_imported_in_one_place(vendor: str) -> None:
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in ("dsonas_hw", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(rf"^ *(import|from) {vendor}\b", path.read_text(), re.MULTILINE)
        or f'require("{vendor}"' in path.read_text()
        or f'import_module("{vendor}"' in path.read_text()
    ]
    assert all(name.startswith(VENDORS[vendor]) for name in files), files


@pytest.mark.parametrize("runtime", runtime_names())
def test_a_runtime_is_named_in_its_own_room_alone(runtime: str) -> None:
    """Nothing else decides by a name, or lists them."""
    assert not [module for module in outside_runtimes() if runtime in literals(module)]


def outside_runtimes() -> list[str]:
    return [name for name in MODULES if name.count(".") and room_of(name) != "runtime"]


def literals(module: str) -> set[str]:
    """Whole strings of a module's code: a text that holds a name among other words is for people."""
    tree = ast.parse(MODULES[module].read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
