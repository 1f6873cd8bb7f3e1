"""The configuration of a run: every number in one place, checked once, frozen.

A configuration is a preset, overlaid by a YAML file (`--config`), overlaid by command-line options. Unknown
keys are refused. `RunConfig` is what a run directory stores in `config.yaml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from dsonas_hw.budget import LIMITABLE, Budget, parse_budgets

Adaptive = Literal["none", "block", "operation", "marginal", "release-flops", "release-mac"]
BY_COST: tuple[Adaptive, ...] = ("block", "operation", "marginal")
"""Where γ goes by a cost of the target."""
Amp = Annotated[
    Literal["off", "bf16", "fp16"],
    BeforeValidator(lambda value: {True: "bf16", False: "off"}[value] if isinstance(value, bool) else value),
]
"""Mixed precision; YAML reads a bare `off` as false."""

MAX_SEED = 2**63 - 1
"""What torch takes."""
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
    """digits, fashion-mnist, cifar10, cifar100, imagenet, or folder:PATH."""
    data_dir: Path | None = None
    """Folder of the dataset's files; None = the user's data directory."""
    train_dir: Path | None = None
    """Of folder:PATH, the folder of the training classes below it, where its name does not tell."""
    test_dir: Path | None = None
    """Of folder:PATH, the folder of the test classes; None = found by its name, or split off."""
    subset: int | None = Field(default=None, ge=2)
    """Train on so many images only, balanced over the classes."""
    test_subset: int | None = Field(default=None, ge=2)
    """Test on so many images only, balanced over the classes."""
    image_size: int | None = Field(default=None, ge=4, le=1024)
    """Height and width in pixels that images are brought to; None = their own, 224 of large photos."""
    split: bool = True
    """W and λ learn on disjoint parts; False: both on all training images (the paper's ablation)."""
    split_ratio: tuple[int, int] = (1, 1)
    """Images for W : images for λ."""
    pad_value: Annotated[int, Field(ge=0, le=255)] | Literal["mean"] = 0
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
    """Which networks there are (`space.space.SearchSpace`)."""

    levels: int = Field(default=4, ge=1, le=16)
    """Levels of a block (M): an operation may read all those of earlier levels."""
    operations: tuple[str, ...] = ("sep3", "sep5", "avg3", "max3")
    """Operations of every level (N), by name (`space.operations`)."""
    stages: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(default=(8, 8, 8), max_length=8)
    """Blocks of each stage; between two stages the resolution halves and the channels double."""
    channels: int = Field(default=48, ge=1, le=4096)
    """Channels of the first stage, in the search."""
    stem: Literal["cifar", "strided", "imagenet"] = "cifar"
    """The first convolutions; they halve the resolution never, once, twice."""
    share: bool = True
    """One set of λ for all blocks; False: one for each block."""
    first_level_lambda: bool = True
    """Whether edges from the block's input to the first level have a λ; the authors' release has none."""
    stage_shortcut: bool = False
    """The release's 1×1 shortcut in the first block of every stage."""
    width_step: int = Field(default=4, ge=1)
    """Deployment widths (first-stage channels) are multiples of it."""
    max_width: int = Field(default=0, ge=0, le=16384)
    """Largest deployment width; 0 = four times `channels`."""


class SearchConfig(_Section):
    """Pretraining of the supernet, then APG-NAG on λ beside SGD on W."""

    pretrain_epochs: int = Field(default=20, ge=0)
    """Epochs of W alone, before λ begin to move."""
    epochs: int = Field(default=120, ge=1)
    """Epochs in which W and λ are trained in turns."""
    batch_size: int = Field(default=128, ge=2)
    """Images of a step, of W and of λ."""
    lr: float = Field(default=0.1, gt=0)
    """Learning rate of W in the search."""
    pretrain_lr: float | None = Field(default=None, gt=0)
    """Of W in pretraining; None = `lr`."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of W (Nesterov)."""
    weight_decay: float = Field(default=3e-4, ge=0)
    """Weight decay of W."""
    free_bn_scale: bool = False
    """Learn the batch norms' scale in stem, block outputs and head, as the authors' release does; the paper
    fixes it to one everywhere."""
    path_strength: bool = False
    """Scale every node and block by its strongest path from the block's input, so that batch norm does not
    hide from λ what it is worth (`search.strength`); the paper does not."""
    lam_lr: float = Field(default=0.1, gt=0)
    """Learning rate of λ."""
    lam_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of λ (APG-NAG)."""
    gamma: float = Field(default=1e-3, gt=0)
    """The λ's L1 weight; with the controller, where it starts."""
    gamma_control: bool = True
    """Scale γ so that the cost reaches the tightest budget when the schedule ends."""
    adaptive: Adaptive = "operation"
    """γ by block cost (Eq. 9), by operation cost (Eq. 10), by what the network saves without the edge
    (marginal), plain, or by the release's own constants."""
    adaptive_cost: str | None = None
    """Which cost γ goes by, named as in a budget (all but memory); None = that of the tightest budget
    (`search.adaptive.gamma_cost`)."""
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

    @field_validator("adaptive_cost")
    @classmethod
    def _adds_up(cls, value: str | None) -> str | None:
        known = [name for name, cost in LIMITABLE.items() if cost.adds_up]
        if value is not None and value not in known:
            raise ValueError(f"must be one of {', '.join(known)}, or null")
        return value

    @property
    def is_by_cost(self) -> bool:
        """Whether γ goes by a cost of the target."""
        return self.adaptive in BY_COST


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
    """Learning from a teacher in retraining, beside the labels (`train.regularise`)."""

    teacher: str | None = None
    """None: no teacher. supernet: that of a search; network: the trained network of `run`; else a hand-made
    family such as resnet, trained first by the same recipe in RUN/teacher."""
    run: Path | None = None
    """The run that holds the supernet or network; None: this run."""
    width: float = Field(default=2.0, ge=0.1, le=16)
    """Of a hand-made teacher, times its family's own."""
    temperature: float = Field(default=4.0, gt=0, le=100)
    """What logits are divided by before both networks' probabilities are compared."""
    weight: float = Field(default=0.5, gt=0, le=1)
    """Of the teacher's part in the loss; the labels have the rest."""


class RetrainConfig(_Section):
    """Training of the derived architecture from scratch."""

    epochs: int = Field(default=630, ge=1)
    """Epochs over all training images."""
    batch_size: int = Field(default=128, ge=2)
    """Images of a step."""
    schedule: Literal["cosine", "cosine-restarts", "linear"] = "cosine-restarts"
    """How the learning rate falls from lr to min_lr."""
    lr: float = Field(default=0.05, gt=0)
    """Largest learning rate."""
    min_lr: float = Field(default=0.001, ge=0)
    """Learning rate at the end of the schedule (of every wave of it)."""
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs in which the learning rate rises to lr first."""
    warmup_lr: float = Field(default=0.0, ge=0)
    """Learning rate that the warm-up begins with."""
    restart_epochs: int = Field(default=10, ge=1)
    """Epochs of the first wave of cosine-restarts."""
    restart_factor: int = Field(default=2, ge=1)
    """How many times longer every next wave is."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum (Nesterov)."""
    weight_decay: float = Field(default=3e-4, ge=0)
    """Weight decay."""
    init: Literal["pytorch", "he"] = "pytorch"
    """How weights are drawn: as PyTorch does (uniform, variance 1 / (3 · fan-in)), or as Huang & Wang (2018)
    and so the paper do (Gaussian, variance 2 / fan-in)."""
    dropout: float = Field(default=0.4, ge=0, lt=1)
    """Of the classifier's inputs, the fraction that is dropped."""
    drop_path: float = Field(default=0.5, ge=0, lt=1)
    """Rate at which the edges of the last block are dropped in the last step (`train.drop_path`)."""
    cutout: int = Field(default=16, ge=0)
    """Side in pixels of the square that is blanked in every training image; 0 = none."""
    aux_weight: float = Field(default=0.4, ge=0)
    """Weight of an auxiliary classifier's loss; 0 = there is none."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Probability that is spread evenly over all classes."""
    grad_clip: float | None = Field(default=5.0, gt=0)
    """Limit of the gradient's norm: an addition to the paper. None: no limit."""
    distill: DistillConfig = DistillConfig()
    """Learning from a teacher."""
    amp: Amp = "off"
    """Autocast; fp16 scales the loss."""
    compile: bool = False
    """`torch.compile` the network, which takes a minute or two to begin; meant for a GPU."""
    width: int | None = Field(default=None, ge=1)
    """Deployment width the budget is steered for (first-stage channels); None = the search's channels."""
    test_every: int = Field(default=1, ge=1)
    """Epochs between tests; the last epoch is always tested."""
    checkpoint_every: int = Field(default=1, ge=1)
    """Epochs between checkpoints."""


class DeviceConfig(_Section):
    """The target, whose costs count."""

    device: str = "local"
    """The device whose costs count: local, or a name of `dsonas-hw devices`."""
    runtime: str | None = None
    """A runtime that `dsonas-hw devices` shows; None = the device's own."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the deployed network."""
    batch_size: int = Field(default=1, ge=1)
    """Images of one inference."""
    threads: int = Field(default=1, ge=1)
    """CPU threads of one inference."""
    statistic: Literal["p50", "p95", "p99"] = "p50"
    """Which percentile of the measured latency a budget limits; p50 is the median."""


class RunConfig(_Section):
    """All of a run."""

    preset: str
    """What the other fields are laid over (`dsonas-hw presets`)."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Same seed, same machine: same result."""
    train_on: str | None = None
    """Where training runs: cpu, cuda, cuda:1, …; None = CUDA if there, else the CPU."""
    budget: tuple[str, ...] = ()
    """Limits that must all hold, such as mac=12M or latency=5ms."""
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
