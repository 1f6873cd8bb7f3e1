"""What `--dry-run` prints: the resolved configuration, the size of the space, and what the supernet costs."""

from __future__ import annotations

from typing import Any

import click

from dsonas_hw.cli.common import print_json


def show_dry_run(config: Any, *, as_json: bool) -> None:
    """Resolve everything that training would use, without images, profile or training."""
    import yaml

    from dsonas_hw.architecture.architecture import complete_architecture, identity_architecture
    from dsonas_hw.architecture.costs import TargetCosts
    from dsonas_hw.budget import format_quantity
    from dsonas_hw.task import space_of_config

    space = space_of_config(config)
    target = TargetCosts(batch_size=config.target.batch_size, precision=config.target.precision)
    networks = {
        "complete supernet": complete_architecture(space),
        "smallest network": identity_architecture(space, width=space.widths()[0]),
        "largest network": complete_architecture(space, width=space.widths()[-1]),
    }
    costs = {name: target.costs(network).to_dict() for name, network in networks.items()}
    log10_size = space.log10_size()
    if as_json:
        print_json(
            {
                "config": config.model_dump(mode="json"),
                "space": {
                    "num_blocks": space.num_blocks,
                    "num_lambda": space.num_lambda_sets * len(space.edges),
                    "log10_size": log10_size,
                    "input_shape": list(space.input_shape),
                    "num_classes": space.num_classes,
                    "widths": [space.widths()[0], space.widths()[-1], space.width_step],
                },
                "costs": costs,
            }
        )
        return
    click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
    kind = "share: one λ set for all blocks" if space.share else "full: a λ set per block"
    click.echo(
        f"\nsearch space: {space.num_blocks} blocks ({kind}), "
        f"{space.num_lambda_sets * len(space.edges)} λ, about 10^{log10_size:.0f} subsets of edges, "
        f"widths {space.widths()[0]} to {space.widths()[-1]} in steps of {space.width_step}"
    )
    for name, values in costs.items():
        parts = [
            f"{label} {format_quantity(label, value)}"
            for label, quantity in (("flops", "flops"), ("mac", "mac"), ("params", "params"),
                                    ("memory", "memory_bytes"))
            if (value := values[quantity]) is not None
        ]  # fmt: skip
        click.echo(f"{name + ':':19} {', '.join(parts)}")
