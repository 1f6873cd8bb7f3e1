"""`dsonas-hw profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import EXIT_INTERRUPTED, json_option, leave, say
from dsonas_hw.cli.options import changes_options, config_from_options, input_shape_option, profiles_option
from dsonas_hw.cli.profile_results import show_results
from dsonas_hw.cli.progress import progress_bar

if TYPE_CHECKING:
    from dsonas_hw.config import RunConfig
    from dsonas_hw.measure.probe import Probe
    from dsonas_hw.profile.profile_space import SpaceProfile
    from dsonas_hw.space.space import SearchSpace
    from dsonas_hw.target import Target

EXAMPLES = """\b
Examples:
  dsonas-hw profile --device local
  dsonas-hw profile --device local --preset digits
  dsonas-hw profile --device local --preset cifar10 --width 24 --width 36 --resolution 32
  dsonas-hw profile --device local --preset cifar10 --set space.levels=3 --set 'space.operations=[sep3,max3]'
  dsonas-hw profile --device local --config mine.yaml
  dsonas-hw profile --device local --check 40 --preset cifar10
  dsonas-hw profile --device local --model mobilenet_v2.onnx
  dsonas-hw profile --device 1080ti
"""
PRESETS = ("digits", "fashion-mnist", "cifar10")
"""What is measured when no preset is named."""


@click.command(epilog=EXAMPLES)
@click.option("--device", help="local, or a GPU (see: devices).  [default: the configuration's, else local]")
@click.option(
    "--mode",
    type=click.Choice(["auto", "measure", "estimate"]),
    default="auto",
    show_default=True,
    help="auto measures what is here and estimates what is not.",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    help="Search spaces to measure networks of; may be repeated.  [default: that of --config or --set, else "
    f"{', '.join(PRESETS)}]",
)
@changes_options
@click.option(
    "--model",
    "models",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Add the kernels of this ONNX network to the table; may be repeated.",
)
@click.option(
    "--width",
    "widths",
    multiple=True,
    type=click.IntRange(1),
    metavar="N",
    help="First-stage channels of the grid; may be repeated (default: a grid over the space).",
)
@click.option(
    "--resolution",
    "resolutions",
    multiple=True,
    type=click.IntRange(4, 1024),
    metavar="N",
    help="Image sizes of the grid; may be repeated (default: the preset's).",
)
@click.option(
    "--networks", "num_networks", type=click.IntRange(4), metavar="N", help="To fit on, for each preset."
)
@click.option(
    "--check",
    "num_checked",
    type=click.IntRange(1),
    metavar="N",
    help="Do not measure: check the table again, on N networks it has not seen.",
)
@click.option("--no-check", is_flag=True, help="Leave the check at the end away.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    metavar="N",
    default=0,
    show_default=True,
    help="Of the networks checked.",
)
@click.option("--runtime", help="What runs the networks (see: dsonas-hw devices).")
@input_shape_option
@click.option(
    "--precision", type=click.Choice(["fp32", "fp16", "int8"]), help="Of the networks.  [default: fp32]"
)
@click.option(
    "--batch-size", type=click.IntRange(1), metavar="N", help="Images of one inference.  [default: 1]"
)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: 1]")
@click.option(
    "--lock-clocks",
    "sm_clock_mhz",
    type=click.IntRange(100),
    metavar="MHZ",
    help="Hold a GPU's SM clock while it is measured, if the driver permits; given back afterwards.",
)
@profiles_option
@json_option
def command(
    device: str | None,
    mode: str,
    presets: tuple[str, ...],
    config_file: Path | None,
    settings: tuple[str, ...],
    models: tuple[Path, ...],
    num_checked: int | None,
    profiles_directory: Path | None,
    as_json: bool,
    runtime: str | None,
    input_shapes: dict[str, tuple[int, ...]],
    precision: str | None,
    batch_size: int | None,
    threads: int | None,
    **options: Any,
) -> None:
    """Measure every kernel that networks of a search space can need, and check the table that results.

    Without --preset, --config, --set and --model, networks of every kind in use are measured on local
    too, so that any network can be predicted. The spaces are those of the presets; --config and --set change
    them as they do for search, so that a space of your own can be profiled. Interrupted, it continues
    where it stopped. A GPU that is not here is estimated, and the table says so.
    """
    from dsonas_hw.profile.open import resolve
    from dsonas_hw.runtime.registry import get_runtime
    from dsonas_hw.target import Target

    configs = [
        config_from_options(
            preset=preset,
            config_file=config_file,
            settings=settings,
            budget=(),
            device=device,
            runtime=runtime,
            precision=precision,
            batch_size=batch_size,
            threads=threads,
        )
        for preset in presets or ((None,) if config_file or settings or models else PRESETS)
    ]
    target = configs[0].target
    name, wanted = resolve(target.device, target.runtime)
    get_runtime(wanted, target.precision)
    measured_here = _is_measured(name, mode)
    if options["sm_clock_mhz"] and (name == "local" or not measured_here):
        raise click.UsageError("--lock-clocks is for a GPU that is measured")
    if models and num_checked is not None:
        raise click.UsageError("--model is measured; it does not go with --check")
    for option, given in (
        ("--model", models),
        ("--check", num_checked is not None),
        ("--width", options["widths"]),
        ("--resolution", options["resolutions"]),
    ):
        if given and not measured_here:
            raise click.UsageError(f"{option} is for what is measured, and {name} would be estimated")
    if input_shapes and not models:
        raise click.UsageError("--input-shape is for the files of --model")
    if measured_here and name == "local":
        _check_local(wanted)
    has_space = bool(presets or config_file or settings)
    own_batch = batch_size or (target.batch_size if has_space else None)
    probes = _read_models(models, own_batch, input_shapes, target.precision, wanted, presets)
    where = Target(
        device=name,
        runtime=wanted,
        precision=target.precision,
        batch_size=own_batch or (probes[0].batch_size if probes else target.batch_size),
        threads=target.threads,
    )
    if not measured_here:
        from dsonas_hw.cli.profile_estimate import list_estimates

        spaces = list(_named_spaces(configs, config_file, settings).values())
        why = "not asked for" if mode == "estimate" else "not here"
        list_estimates(where, profiles_directory, spaces, why=why, as_json=as_json)
        return
    named = {} if models and not has_space else _named_spaces(configs, config_file, settings)
    try:
        # What a runtime on a GPU takes is its own: only those that the CPU runs are of every kind.
        with_generic = name == "local" and not (models or has_space)
        results = _measure(named, where, num_checked, profiles_directory, options, with_generic=with_generic)
        if models:
            results.append(_profile_models(probes, where, profiles_directory, options["sm_clock_mhz"]))
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where it stopped")
        leave(EXIT_INTERRUPTED)
    show_results(results, name, as_json=as_json)


def _is_measured(device: str, mode: str) -> bool:
    """Whether a device is measured; a GPU that is to be, and is not here, is refused when it is opened.

    Raises:
        DeviceError: the CPU is to be estimated.
    """
    from dsonas_hw.errors import DeviceError
    from dsonas_hw.profile.gpu_bench import is_here

    if device == "local" and mode == "estimate":
        raise DeviceError("local is this machine's CPU: it is measured, never estimated")
    return device == "local" or mode == "measure" or (mode == "auto" and is_here(device))


def _named_spaces(
    configs: list[RunConfig], config_file: Path | None, settings: tuple[str, ...]
) -> dict[str, SearchSpace]:
    """The search spaces, by what they are called in the table: preset, file and settings."""
    from dsonas_hw.train.images import space_of_config

    changes = " ".join([config_file.stem] if config_file else []) + "".join(f" {text}" for text in settings)
    return {
        f"{config.preset} {changes.strip()}".rstrip()[:200]: space_of_config(config) for config in configs
    }


def _measure(
    spaces: dict[str, SearchSpace],
    where: Target,
    num_checked: int | None,
    profiles_directory: Path | None,
    options: dict[str, Any],
    *,
    with_generic: bool,
) -> list[SpaceProfile]:
    """What became of each space, and of networks of other kinds."""
    from dsonas_hw.profile.generic_profile import NAME, check_generic, profile_generic
    from dsonas_hw.profile.profile_space import (
        NUM_CHECKED,
        SpaceProfile,
        check_space,
        path_of,
        profile_space,
    )
    from dsonas_hw.table.table import load_table

    grid = {"widths": options["widths"] or None, "resolutions": options["resolutions"] or None}
    path = path_of(where, profiles_directory)
    results: list[SpaceProfile] = []
    if num_checked is None:
        if with_generic:
            with progress_bar(f"profile {NAME}") as report:
                profile_generic(path, where, fit=not spaces, progress=report)
        for number, (name, space) in enumerate(spaces.items(), start=1):
            with progress_bar(f"profile {name}") as report:
                done = profile_space(
                    space,
                    where,
                    name=name,
                    profiles_directory=profiles_directory,
                    num_networks=options["num_networks"],
                    num_checked=0,
                    sm_clock_mhz=options["sm_clock_mhz"],
                    fit=number == len(spaces),
                    progress=report,
                    **grid,
                )
            results.append(done)
        if options["no_check"]:
            return results or [SpaceProfile(path=path, check=None)]
    for name, space in spaces.items():
        with progress_bar(f"check {name}") as report:
            done = check_space(
                space,
                load_table(path),
                name=name,
                num_checked=num_checked or NUM_CHECKED,
                seed=options["seed"],
                progress=report,
                **grid,
            )
        results.append(done)
    if with_generic:
        with progress_bar(f"check {NAME}") as report:
            check = check_generic(load_table(path), seed=options["seed"], progress=report)
        results.append(SpaceProfile(path=path, check=check))
    return results


def _check_local(runtime: str) -> None:
    """Refuse what cannot measure this machine's CPU.

    Raises:
        DeviceError: with the reason.
    """
    from dsonas_hw.errors import DeviceError
    from dsonas_hw.runtime.registry import all_runtimes, get_runtime
    from dsonas_hw.target import Target

    found, where = get_runtime(runtime), Target(runtime=runtime)
    if not found.on_cpu:
        reason = found.why_not_here() or "the device local is the CPU; name the GPU with --device"
        raise DeviceError(f"runtime {runtime} cannot run here: {reason}")
    if found.why_untimed(where):
        able = " or ".join(
            each.name for each in all_runtimes() if each.on_cpu and not each.why_untimed(where)
        )
        raise DeviceError(f"local is profiled with {able}, not {runtime}; name a GPU")


def _read_models(
    models: tuple[Path, ...],
    batch_size: int | None,
    input_shapes: dict[str, tuple[int, ...]],
    precision: str,
    runtime: str,
    presets: tuple[str, ...],
) -> list[Probe]:
    """The networks of files, before anything is measured.

    Raises:
        UserError: a file that cannot be timed, or files of different batch sizes.
    """
    from dsonas_hw.errors import ProfileError
    from dsonas_hw.kernel.onnx.from_onnx import check_input_names
    from dsonas_hw.profile.model_probes import model_probe

    check_input_names(input_shapes, models)
    wanted = 1 if presets and batch_size is None else batch_size
    probes = [
        model_probe(path, batch_size=wanted, input_shapes=input_shapes, precision=precision, runtime=runtime)
        for path in models
    ]
    sizes = sorted({probe.batch_size for probe in probes})
    if len(sizes) > 1:
        raise ProfileError(
            f"the files have batch sizes {', '.join(map(str, sizes))}, and a table has one; give --batch-size"
        )
    return probes


def _profile_models(
    probes: list[Probe], where: Target, profiles_directory: Path | None, sm_clock_mhz: int | None
) -> SpaceProfile:
    """Measure networks of files."""
    from dsonas_hw.profile.open_bench import open_bench
    from dsonas_hw.profile.profile_space import SpaceProfile, path_of
    from dsonas_hw.profile.profiler import profile_networks

    path = path_of(where, profiles_directory)
    with (
        progress_bar("profile models") as report,
        open_bench(where, sm_clock_mhz=sm_clock_mhz) as bench,
    ):
        source = profile_networks(path, bench, probes, progress=report).header.source
        return SpaceProfile(path=path, check=None, source=source, remarks=bench.remarks)
