"""The configuration of a run: every number in one place, checked once, frozen.

A configuration is a preset, overlaid by a YAML file (`--config`), overlaid by command-line options. Unknown
keys are refused. `RunConfig` is what a run directory stores in `config.yaml`.
"""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from dsonas_hw.budget import Budget, parse_budgets
from dsonas_hw.errors import UserError, closest
from dsonas_hw.files import read_regular

Adaptive = Literal["none", "block", "operation", "marginal", "release-flops", "release-mac"]
Amp = Annotated[
    Literal["off", "bf16", "fp16"],
    BeforeValidator(lambda value: {True: "bf16", False: "off"}[value] if isinstance(value, bool) else value),
]
"""Mixed precision; YAML reads a bare `off` as false."""

SHAPES_IMAGES = ("dataset", "data_dir", "image_size")
"""Fields of the data that decide the shape of an image, and the classes."""
MAX_CONFIG_BYTES = 1_000_000
MAX_SEED = 2**63 - 1
"""What torch takes."""
MAX_YAML_DEPTH = 50
"""Brackets within brackets; reading them takes time by the square of their depth."""
MAX_NUMBER = 1e9
"""No rate, weight or limit is larger; what torch computes with them stays far from float32's end."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _is_not_absurd(cls, value: object) -> object:
        if isinstance(value, float) and value > MAX_NUMBER:
            raise ValueError(f"must be at most {MAX_NUMBER:g}")
        return value


class DataConfig(_Section):
    """Which images, and how they are split for the search."""

    dataset: str = "digits"
    """digits, fashion-mnist, cifar10, cifar100, imagenet or folder:PATH."""
    data_dir: Path | None = None
    train_dir: Path | None = None
    """Of folder:PATH, the folder of the training classes below it, where its name does not tell."""
    test_dir: Path | None = None
    subset: int | None = Field(default=None, ge=2)
    """Train on so many images only, balanced over the classes."""
    test_subset: int | None = Field(default=None, ge=2)
    image_size: int | None = Field(default=None, ge=4, le=1024)
    split: bool = True
    """W and λ learn on disjoint parts; False: both on all training images (the paper's ablation)."""
    split_ratio: tuple[int, int] = (1, 1)
    """Images for W : images for λ."""
    pad_value: int | Literal["mean"] = 0
    """What images in memory are padded with before a crop: a grey level, or the mean colour of the set."""
    num_workers: int = Field(default=2, ge=0)
    """Loading processes, for sets that do not fit in memory."""

    @field_validator("pad_value", mode="before")
    @classmethod
    def _is_grey_or_mean(cls, value: object) -> object:
        if value == "mean" or (type(value) is int and 0 <= value <= 255):
            return value
        raise ValueError("must be a grey level, 0 to 255, or mean")


class SpaceConfig(_Section):
    """The search space; fields as in `space.space.SearchSpace`."""

    levels: int = Field(default=4, ge=1, le=16)
    operations: tuple[str, ...] = ("sep3", "sep5", "avg3", "max3")
    stages: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(default=(8, 8, 8), max_length=8)
    channels: int = Field(default=48, ge=1, le=4096)
    stem: Literal["cifar", "strided", "imagenet"] = "cifar"
    share: bool = True
    first_level_lambda: bool = True
    stage_shortcut: bool = False
    width_step: int = Field(default=4, ge=1)


class SearchConfig(_Section):
    """Pretraining of the supernet, then APG-NAG on λ beside SGD on W."""

    pretrain_epochs: int = Field(default=20, ge=0)
    epochs: int = Field(default=120, ge=1)
    batch_size: int = Field(default=128, ge=2)
    lr: float = Field(default=0.1, gt=0)
    pretrain_lr: float | None = Field(default=None, gt=0)
    """Of W in pretraining; None = `lr`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    free_bn_scale: bool = False
    """Learn the batch norms' scale in stem, block outputs and head, as the authors' release does; the paper
    fixes it to one everywhere."""
    path_strength: bool = False
    """Scale every node and block by its strongest path from the block's input, so that batch norm does not
    hide from λ what it is worth (`search.strength`); the paper does not."""
    lam_lr: float = Field(default=0.1, gt=0)
    lam_momentum: float = Field(default=0.9, ge=0, lt=1)
    gamma: float = Field(default=1e-3, gt=0)
    """The λ's L1 weight; with the controller, where it starts."""
    gamma_control: bool = True
    """Scale γ so that the cost reaches the tightest budget when the schedule ends."""
    adaptive: Adaptive = "operation"
    """γ by block cost (Eq. 9), by operation cost (Eq. 10), by what the network saves without the edge
    (marginal), plain, or by the release's own constants."""
    adaptive_cost: Literal["flops", "mac", "params", "latency", "energy"] | None = None
    """Which cost γ goes by; None = that of the tightest budget (`search.adaptive.gamma_cost`)."""
    w_steps: int = Field(default=1, ge=1)
    """Steps on W for each step on λ."""
    grad_clip: float = Field(default=2.0, gt=0)
    """Gradients are clipped to ± this value, elementwise: an addition to the paper, from the release."""
    prune_every: int = Field(default=5, ge=1)
    """Epochs between physical prunings."""
    path_images: int = Field(default=512, ge=16)
    """Images that score a point of the path with the shared weights."""
    path_interval: int = Field(default=5, ge=1)
    """λ steps between two scored points, at least."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""
    amp: Amp = "off"
    """Autocast; fp16 scales the loss."""
    checkpoint_activations: bool = False
    """Keep of every block only its input, and compute the rest again going back: less memory, more time."""


class SelectConfig(_Section):
    """Which network of the path is trained: candidates of several widths are trained briefly and halved.

    After the first round the better half is trained until it has twice the epochs, and so on until one is
    left.
    """

    candidates: int = Field(default=8, ge=0, le=256)
    """Networks of the first round; 0 = none is trained: one is chosen by rule, as in the paper."""
    epochs: int = Field(default=1, ge=1)
    """Of the first round, over the images of W; those of λ score."""


class DistillConfig(_Section):
    """Learning from a teacher in retraining, beside the labels (`train.distill_loss`)."""

    teacher: str | None = None
    """None: no teacher. supernet: that of a search; network: the trained network of `run`; else a hand-made
    family such as resnet, trained first by the same recipe in RUN/teacher."""
    run: Path | None = None
    """The run that holds the supernet or network; None: this run."""
    width: float = Field(default=2.0, ge=0.1, le=16)
    """Of a hand-made teacher, times its family's own."""
    temperature: float = Field(default=4.0, gt=0, le=100)
    weight: float = Field(default=0.5, gt=0, le=1)
    """Of the teacher's part in the loss; the labels have the rest."""


class RetrainConfig(_Section):
    """Training of the derived architecture from scratch."""

    epochs: int = Field(default=630, ge=1)
    batch_size: int = Field(default=128, ge=2)
    schedule: Literal["cosine", "cosine-restarts", "linear", "step", "constant"] = "cosine-restarts"
    lr: float = Field(default=0.05, gt=0)
    min_lr: float = Field(default=0.001, ge=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    warmup_lr: float = Field(default=0.0, ge=0)
    restart_epochs: int = Field(default=10, ge=1)
    restart_factor: int = Field(default=2, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-4, ge=0)
    init: Literal["pytorch", "he"] = "pytorch"
    """How weights are drawn: as PyTorch does (uniform, variance 1 / (3 · fan-in)), or as Huang & Wang (2018)
    and so the paper do (Gaussian, variance 2 / fan-in)."""
    dropout: float = Field(default=0.4, ge=0, lt=1)
    """Of the classifier's inputs, the share that is dropped."""
    drop_path: float = Field(default=0.5, ge=0, lt=1)
    """Rate at which the edges of the last block are dropped in the last step (`train.drop_path`)."""
    cutout: int = Field(default=16, ge=0)
    aux_weight: float = Field(default=0.4, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    grad_clip: float | None = Field(default=5.0, gt=0)
    """Limit of the gradient's norm: an addition to the paper. None: no limit."""
    ema: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights; 0 = none."""
    distill: DistillConfig = DistillConfig()
    amp: Amp = "off"
    compile: bool = False
    """`torch.compile` the network, which takes a minute or two to begin; meant for a GPU."""
    width: int | None = Field(default=None, ge=1)
    """Deployment width the budget is steered for (first-stage channels); None = the search's channels."""
    test_every: int = Field(default=1, ge=1)
    """Epochs between tests; the last epoch is always tested."""
    checkpoint_every: int = Field(default=1, ge=1)


class DeviceConfig(_Section):
    """The target, whose costs count."""

    device: str = "local"
    runtime: str | None = None
    """ort-cpu, ort-cuda, ort-tensorrt, tensorrt, eager; None = the device's own."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    batch_size: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    statistic: Literal["p50", "p95", "p99"] = "p50"
    """Which percentile of the measured latency a budget limits; p50 is the median."""


class RunConfig(_Section):
    """All of a run."""

    preset: str
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    train_on: str | None = None
    """Where training runs: cpu, cuda, cuda:1, …; None = CUDA if there, else the CPU."""
    budget: tuple[str, ...] = ()
    data: DataConfig = DataConfig()
    space: SpaceConfig = SpaceConfig()
    search: SearchConfig = SearchConfig()
    select: SelectConfig = SelectConfig()
    retrain: RetrainConfig = RetrainConfig()
    target: DeviceConfig = DeviceConfig()

    @field_validator("budget", mode="before")
    @classmethod
    def _one_budget_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> RunConfig:
        parse_budgets(self.budget)
        if self.data.split_ratio[0] < 1 or self.data.split_ratio[1] < 1:
            raise ValueError("data.split_ratio needs two positive numbers, e.g. [1, 1]")
        return self

    @property
    def budgets(self) -> tuple[Budget, ...]:
        return parse_budgets(self.budget)


def preset_names() -> list[str]:
    """Names of the shipped presets."""
    folder = resources.files("dsonas_hw") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    """A shipped preset as nested dictionaries.

    Raises:
        UserError: no preset of that name.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset {name!r}. {closest(name, preset_names())}")
    text = (resources.files("dsonas_hw") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    return parse_yaml(text, origin=f"preset {name}")


def space_options(config: RunConfig) -> str:
    """Options that make the search space of a configuration on a command line: a preset and what differs.

    Example: ``--preset digits --set space.levels=2 --set 'space.operations=[sep3,max3]'``.
    """
    preset = build_config(load_preset(config.preset))
    words = ["--preset", config.preset]
    for section in ("data", "space"):
        ours, theirs = getattr(config, section), getattr(preset, section)
        for name in type(ours).model_fields:
            if (section == "space" or name in SHAPES_IMAGES) and getattr(ours, name) != getattr(theirs, name):
                words += ["--set", f"{section}.{name}={_as_yaml(getattr(ours, name))}"]
    return shlex.join(words)


def _as_yaml(value: object) -> str:
    """A field's value as `--set` reads it."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_as_yaml, value))}]"
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def load_config_file(path: Path) -> dict[str, Any]:
    """A YAML file of options as nested dictionaries.

    Raises:
        UserError: a file that cannot be read, is too large, or is not a YAML mapping.
    """
    try:
        text = read_regular(path, max_bytes=MAX_CONFIG_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"cannot read the configuration {path}: it is not text in UTF-8") from None
    return parse_yaml(text, origin=str(path))


_YAML_DEPTH = {
    f"{kind}{edge}Token": step
    for kind in ("FlowSequence", "FlowMapping", "BlockSequence", "BlockMapping", "Block")
    for edge, step in (("Start", 1), ("End", -1))
}
"""Token → what it adds to the depth; every kind of block ends with a BlockEndToken."""


def parse_yaml(text: str, *, origin: str) -> dict[str, Any]:
    """A YAML mapping; anchors are refused, since a few lines of them expand without bound."""
    import yaml

    depth = 0
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.tokens.AliasToken):
                raise UserError(f"{origin}: YAML aliases are not supported; write the value out")
            depth += _YAML_DEPTH.get(type(token).__name__, 0)
            if depth > MAX_YAML_DEPTH:
                raise UserError(f"{origin}: YAML nested more than {MAX_YAML_DEPTH} deep is not supported")
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{origin} must hold a mapping of options")
    return data


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; nested mappings are merged, everything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def build_config(data: Mapping[str, Any], *, origin: str = "configuration") -> RunConfig:
    """Check nested dictionaries and freeze them.

    Raises:
        UserError: names the first key that is unknown or holds a bad value.
        BudgetError: a budget that cannot be read.
    """
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = closest(str(first["loc"][-1]), _known_keys(first["loc"][:-1]))
            raise UserError(f"{origin}: unknown key {where!r}. {hint}") from None
        message = first["msg"].removeprefix("Value error, ")
        if not where:  # a check of several fields, which names them
            raise UserError(f"{origin}: {message}") from None
        raise UserError(f"{origin}: {where}: {message} (got {first['input']!r})") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
