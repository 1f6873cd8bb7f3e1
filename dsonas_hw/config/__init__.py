"""The configuration of a run: its fields, the presets, and the files that are laid over them."""

from dsonas_hw.config.load import build_config, load_config_file, overlay, parse_yaml
from dsonas_hw.config.models import (
    Adaptive,
    Amp,
    DataConfig,
    DeviceConfig,
    DistillConfig,
    RetrainConfig,
    RunConfig,
    SearchConfig,
    SelectConfig,
    SpaceConfig,
)
from dsonas_hw.config.presets import load_preset, preset_names, space_options

__all__ = [
    "Adaptive",
    "Amp",
    "DataConfig",
    "DeviceConfig",
    "DistillConfig",
    "RetrainConfig",
    "RunConfig",
    "SearchConfig",
    "SelectConfig",
    "SpaceConfig",
    "build_config",
    "load_config_file",
    "load_preset",
    "overlay",
    "parse_yaml",
    "preset_names",
    "space_options",
]
