"""`dsonas-hw presets`."""

from __future__ import annotations

import textwrap

import click

from dsonas_hw.cli.common import json_option, print_json

EXAMPLES = """\b
Examples:
  dsonas-hw presets
  dsonas-hw presets --json
"""


@click.command(epilog=EXAMPLES)
@json_option
def command(as_json: bool) -> None:
    """List the presets: what each is for, its size, and what a run of it takes.

    A preset is chosen with --preset NAME; without it, the dataset has one of its own.
    """
    from dsonas_hw.config import preset_names
    from dsonas_hw.config.presets import summarise_preset

    presets = [summarise_preset(name) for name in preset_names()]
    if as_json:
        print_json(
            {
                "presets": [
                    {
                        "name": p.name,
                        "purpose": p.purpose,
                        "cost": p.cost,
                        "config": p.config.model_dump(mode="json"),
                    }
                    for p in presets
                ]
            }
        )
        return
    for preset in presets:
        config = preset.config
        epochs = f"{config.search.pretrain_epochs} + {config.search.epochs} + {config.retrain.epochs}"
        size = f"{sum(config.space.stages)} blocks, {config.space.channels} channels, {epochs} epochs"
        click.echo(f"{preset.name}: {size}")
        for text in (preset.purpose, f"Cost: {preset.cost}"):
            click.echo(textwrap.fill(text, 100, initial_indent="    ", subsequent_indent="    "))
    click.echo(
        "epochs: of pretraining, search and retraining; every number of a preset: --preset NAME --dry-run"
    )
