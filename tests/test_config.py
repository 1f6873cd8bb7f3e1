"""A configuration is checked once: what is wrong is refused by name, what is right survives a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dsonas_hw.config import (
    RunConfig,
    SpaceConfig,
    build_config,
    load_config_file,
    load_preset,
    overlay,
    parse_yaml,
    preset_names,
)
from dsonas_hw.config.load import MAX_CONFIG_BYTES
from dsonas_hw.errors import UserError
from dsonas_hw.space.space import SearchSpace


def config_with(**changes: Any) -> RunConfig:
    return build_config(overlay(load_preset("digits"), changes))


# -- presets ---------------------------------------------------------------------------------------------


def test_the_promised_presets_are_there() -> None:
    assert {"digits", "fashion-mnist", "cifar10", "imagenet"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_configuration_of_its_name(name: str) -> None:
    config = build_config(load_preset(name))
    assert config.preset == name
    assert config.seed == 0
    sizes = config.space.model_dump()
    SearchSpace(**sizes, input_shape=(3, 64, 64))


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'cifar'\. Did you mean cifar10"):
        load_preset("cifar")
    with pytest.raises(UserError, match="unknown preset"):
        load_preset("../presets/cifar10")


def test_space_fields_are_those_of_the_search_space() -> None:
    of_space = {f.name: f.default for f in dataclasses.fields(SearchSpace)}
    for name, field in SpaceConfig.model_fields.items():
        assert of_space[name] == field.default


# -- laying one over the other ---------------------------------------------------------------------------


def test_overlay_merges_sections_and_replaces_values() -> None:
    base = {"a": {"x": 1, "y": [1, 2]}, "b": 1}
    assert overlay(base, {"a": {"y": [3]}, "c": {"z": 0}}) == {"a": {"x": 1, "y": [3]}, "b": 1, "c": {"z": 0}}
    assert overlay(base, {"a": 2}) == {"a": 2, "b": 1}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1}


nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abcd"), nested, max_size=4)


@given(mappings, mappings, mappings)
def test_overlay_is_associative_with_a_neutral_element(a: Any, b: Any, c: Any) -> None:
    assert overlay({}, a) == overlay(a, {}) == overlay(a, a) == a
    # A section over a value over a section forgets the first section, whichever pair is laid first.
    if not any(
        isinstance(a.get(k), dict) and not isinstance(b.get(k, {}), dict) and isinstance(c.get(k), dict)
        for k in "abcd"
    ) and not _hides(a, b, c):
        assert overlay(overlay(a, b), c) == overlay(a, overlay(b, c))


def _hides(a: Any, b: Any, c: Any) -> bool:
    """Whether somewhere a section of `a` is replaced by a value of `b` that a section of `c` replaces."""
    if not (isinstance(a, dict) and isinstance(c, dict)):
        return False
    if not isinstance(b, dict):
        return True
    return any(k in a and k in b and k in c and _hides(a[k], b[k], c[k]) for k in "abcd")


# -- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"epoch": 3}}, r"unknown key 'search\.epoch'\. Did you mean epochs"),
        ({"sarch": {}}, r"unknown key 'sarch'\. Did you mean search"),
        ({"search": {"epochs": "many"}}, r"search\.epochs: .*integer.*\(got 'many'\)"),
        ({"search": {"epochs": 0}}, r"search\.epochs: .*greater than or equal to 1.*\(got 0\)"),
        ({"search": {"lr": float("nan")}}, r"search\.lr: .*\(got nan\)"),
        ({"search": {"lr": float("inf")}}, r"search\.lr: .*\(got inf\)"),
        ({"search": {"lam_momentum": 1.0}}, r"search\.lam_momentum: .*less than 1"),
        ({"search": {"adaptive": "blocks"}}, r"search\.adaptive: .*'none', 'block', 'operation', "),
        ({"search": {"adaptive_cost": "memory"}}, r"search\.adaptive_cost"),
        ({"space": {"stem": "mnist"}}, r"space\.stem"),
        (
            {"data": {"split_ratio": [1, 0]}},
            r"^configuration: data\.split_ratio needs two positive numbers, [^{]*$",
        ),
        ({"data": {"split_ratio": [1]}}, r"data\.split_ratio"),
        ({"data": {"image_size": 3}}, r"data\.image_size: .*greater than or equal to 4"),
        ({"data": {"image_size": 5000}}, r"data\.image_size: .*less than or equal to 1024"),
        ({"target": {"precision": "fp8"}}, r"target\.precision"),
        ({"target": {"batch_size": 0}}, r"target\.batch_size"),
        ({"retrain": 5}, r"retrain: "),
        ({"seed": -1}, r"seed: "),
        ({"seed": 1.5}, r"seed: "),
        ({"seed": 2**63}, r"seed: .*less than or equal to 9223372036854775807"),
        ({"search": {"lr": 1e300}}, r"search\.lr: must be at most 1e\+09"),
        ({"retrain": {"weight_decay": 1e300}}, r"retrain\.weight_decay: must be at most 1e\+09"),
        ({"space": {"stages": [100_000]}}, r"space\.stages\.0: .*less than or equal to 100"),
        ({"space": {"channels": 1_000_000}}, r"space\.channels: .*less than or equal to 4096"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        config_with(**changes)
    assert "\n" not in str(refusal.value)


def test_a_missing_preset_is_refused() -> None:
    with pytest.raises(UserError, match="preset: Field required"):
        build_config({})


@pytest.mark.parametrize("budget", [["macs=5M"], ["latency=5"], ["mac=1M", "mac=2M"], [""]])
def test_budgets_are_checked_with_the_rest(budget: list[str]) -> None:
    with pytest.raises(UserError, match="budget"):
        config_with(budget=budget)


def test_one_budget_needs_no_list() -> None:
    assert (
        config_with(budget="mac=1M, latency=5ms").budgets
        == config_with(budget=["mac=1M", "latency=5ms"]).budgets
    )


def test_many_sections_are_not_deep() -> None:
    flow = "".join(f"k{n}: {{a: [1], b: [2]}}\n" for n in range(200))
    block = "".join(f"k{n}:\n  a:\n  - 1\n  - b: 2\n" for n in range(200))
    assert len(parse_yaml(flow, origin="test")) == len(parse_yaml(block, origin="test")) == 200


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config_with().seed = 1  # type: ignore[misc]


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner),
    max_leaves=6,
)
sections = ["preset", "seed", "budget", "data", "space", "search", "retrain", "target", "x"]


@given(st.dictionaries(st.sampled_from(sections) | st.integers() | st.text(max_size=3), yaml_values))
def test_any_mapping_is_a_configuration_or_refused(data: dict[Any, Any]) -> None:
    message = ""
    try:
        build_config({"preset": "digits", **data})
    except UserError as refusal:
        message = str(refusal)
    assert "\n" not in message


# -- files -----------------------------------------------------------------------------------------------


@given(
    st.floats(1e-12, 1e9),
    st.sampled_from(["folder:/a b/ü", "digits", "folder:1e3"]),
    st.none() | st.integers(1, 10**6),
)
def test_a_configuration_survives_its_file(lr: float, dataset: str, width: int | None) -> None:
    config = config_with(
        search={"lr": lr},
        data={"dataset": dataset, "data_dir": "~/images"},
        retrain={"width": width},
        budget=["mac=1M", "latency=0.5ms"],
    )
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    assert build_config(parse_yaml(text, origin="config.yaml")) == config


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    (tmp_path / "options.yaml").write_text("search: {lr: 1e-3, epochs: '7'}\nspace: {stages: [1, 2]}\n")
    config = config_with(**load_config_file(tmp_path / "options.yaml"))
    assert config.search.lr == 0.001  # YAML 1.1 reads 1e-3 as a text
    assert config.search.epochs == 7
    assert config.space.stages == (1, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "is not valid YAML"),
        ("- 1\n- 2\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("just text", "must hold a mapping"),
        ("a: &x [1]\nb: *x\n", "aliases are not supported"),
        ("a: !!python/object/apply:os.system ['echo']\n", "is not valid YAML"),
        ("a: " + "[" * 50_000, "nested more than 50 deep"),  # would take minutes to read
        ("a: " + "{b: " * 50_000, "nested more than 50 deep"),
        ("a:\n" + "- " * 50_000, "nested more than 50 deep"),
        ("a: 2024-13-45\n", "is not valid YAML"),
        ("a: \x00\n", "is not valid YAML"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "options.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as refusal:
        load_config_file(tmp_path / "options.yaml")
    assert "\n" not in str(refusal.value)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config_file(tmp_path / "missing.yaml")
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config_file(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config_file(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(UserError, match="larger than"):
        load_config_file(tmp_path / "large.yaml")
