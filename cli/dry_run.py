"""What `--dry-run` prints: the resolved configuration, the size of the space, and what its networks cost."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import print_json, say

if TYPE_CHECKING:
    from dsonas_hw.architecture.costs import TargetCosts
    from dsonas_hw.space.space import SearchSpace


def show_dry_run(
    config: Any, *, profiles_directory: Path | None, as_json: bool, measures: bool = False
) -> None:
    """Resolve everything that training would use, without images, profile or training.

    measures: the command would measure this machine first.

    Raises:
        BudgetError: a budget that no network of the space meets; latency and energy only where there is a
            profile.
        DeviceError: no such device.
    """
    from dsonas_hw.architecture.architecture import complete_architecture, identity_architecture
    from dsonas_hw.architecture.fit import check_feasible, find_loose
    from dsonas_hw.search.duration import estimate_run
    from dsonas_hw.task import target_costs
    from dsonas_hw.train.images import count_train_images, describe_images, space_of_config

    images = describe_images(config)
    space = space_of_config(config)
    target = target_costs(config.target, profiles_directory=profiles_directory)
    known = target.cost_model is not None
    budgets = [budget for budget in config.budgets if known or not budget.metric]
    check_feasible(space, budgets, target)
    for sentence in find_loose(space, budgets, target):
        say(sentence)
    networks = {
        "complete supernet": complete_architecture(space),
        "smallest network": identity_architecture(space, width=space.widths()[0]),
        "largest network": complete_architecture(space, width=space.widths()[-1]),
    }
    estimate = estimate_run(config, space, count_train_images(config.data))
    costs = {name: target.costs(network).to_dict() for name, network in networks.items()}
    if as_json:
        print_json(
            {
                "config": config.model_dump(mode="json"),
                "space": {
                    "num_blocks": space.num_blocks,
                    "num_lambda": space.num_lambda_sets * len(space.edges),
                    "log10_size": space.log10_size(),
                    "input_shape": list(space.input_shape),
                    "num_classes": space.num_classes,
                    "widths": [space.widths()[0], space.widths()[-1], space.width_step],
                },
                "costs": costs,
                "latency_source": target.source if known else None,
                "estimate": asdict(estimate),
                "images": images,
                "selection": _selection(config),
            }
        )
    else:
        _print(
            config, space, costs, target, "" if known else _why_unknown(config, profiles_directory, measures)
        )
        for line in (*image_lines(images), str(estimate), *filter(None, [estimate.refusal])):
            click.echo(line)


def image_lines(images: dict[str, Any] | None) -> list[str]:
    """What a user should read before images of folders are trained on; see `train.images.describe_images`."""
    if images is None:
        return []
    lines = []
    for side in ("train", "test"):
        found = images[side]
        classes = list(found["classes"].items())
        named = ", ".join(f"{name} {count}" for name, count in classes[:10]) + (", …" if classes[10:] else "")
        part = "split off, " if found["split_off"] else ""
        lines.append(
            f"{side} images: {found['num_images']} of {len(classes)} classes ({named}), {part}"
            f"{found['directory']}"
        )
    if images["ignored"]:
        lines.append(f"ignored: {', '.join(images['ignored'])}")
    return lines


def _print(
    config: Any,
    space: SearchSpace,
    costs: dict[str, dict[str, float | None]],
    target: TargetCosts,
    why_unknown: str,
) -> None:
    import yaml

    from dsonas_hw.architecture.architecture import complete_architecture
    from dsonas_hw.budget import QUANTITIES, format_interval, format_quantity

    click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
    kind = "share: one λ set for all blocks" if space.share else "full: a λ set per block"
    click.echo(
        f"\nsearch space: {space.num_blocks} blocks ({kind}), {space.num_lambda_sets * len(space.edges)} λ, "
        f"about 10^{space.log10_size():.0f} subsets of edges, "
        f"widths {space.widths()[0]} to {space.widths()[-1]} in steps of {space.width_step}\n"
    )
    shown = [
        name for name, quantity in QUANTITIES.items() if costs["complete supernet"][quantity] is not None
    ]
    click.echo(f"{'':17}" + "".join(f"{name:>12}" for name in shown))
    for network, values in costs.items():
        cells = [format_quantity(name, values[QUANTITIES[name]] or 0.0) for name in shown]
        click.echo(f"{network:17}" + "".join(f"{cell:>12}" for cell in cells))
    click.echo("mac: memory access (elements read and written); flops: multiply-adds, which others call MACs")
    if (selection := _selection(config)) is not None:
        words = ", ".join(f"{r['num_networks']} × {r['epochs']}" for r in selection["rounds"])
        click.echo(
            f"\nselection: networks × epochs (in all) {words}; "
            f"{selection['relative_to_retraining']:.0%} of a retraining's images"
        )
    if why_unknown:
        click.echo(f"\nlatency: unknown; {why_unknown}")
    else:
        where = f"{config.target.device}, {target.target}"
        interval = ""
        if costs["complete supernet"]["latency_ms"] is not None:
            supernet = target.predict(complete_architecture(space), "latency")
            interval = f"; of the complete supernet {format_interval('latency', supernet.low, supernet.high)}"
        click.echo(f"\nlatency: predicted from {target.source} kernels of {where}{interval}")
        if target.disclaimer:
            click.echo(target.disclaimer)
    for budget in config.budgets:
        value = costs["complete supernet"].get(budget.quantity)
        if value is not None:
            click.echo(f"budget {budget}: {budget.limit / value:.1%} of the complete supernet")


def _selection(config: Any) -> dict[str, Any] | None:
    """The rounds of the brief trainings and what they cost; None: nothing is selected by training."""
    from dsonas_hw.search.halving import plan_rounds, selection_effort

    if not config.select.candidates or not config.budget:
        return None
    rounds = plan_rounds(config.select.candidates, config.select.epochs)
    return {
        "rounds": [{"num_networks": r.num_networks, "epochs": r.epochs} for r in rounds],
        "relative_to_retraining": selection_effort(config),
    }


def _why_unknown(config: Any, profiles_directory: Path | None, measures: bool) -> str:
    """What stands in the way of a latency: no table, or one that cannot be used."""
    from dsonas_hw.device.spec import LOCAL

    if measures and config.target.device == LOCAL:
        return "this machine is measured first"
    from dsonas_hw.config import space_options
    from dsonas_hw.errors import ProfileError
    from dsonas_hw.task import target_costs

    try:
        target_costs(
            config.target,
            profiles_directory=profiles_directory,
            needs=["latency"],
            profile_options=space_options(config),
        )
    except ProfileError as error:
        return str(error)
    return "the target has no profile"
