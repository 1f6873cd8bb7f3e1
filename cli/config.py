"""`dsonas-hw config`."""

from __future__ import annotations

import json
import textwrap

import click

from dsonas_hw.cli.common import json_option, print_json

EXAMPLES = """\b
Examples:
  dsonas-hw config
  dsonas-hw config search
  dsonas-hw config retrain.epochs
"""


@click.command(epilog=EXAMPLES)
@click.argument("prefix", metavar="[KEY]", default="")
@json_option
def command(prefix: str, as_json: bool) -> None:
    """List every field of a configuration: meaning, range, default.

    KEY is a field, or a section: data, space, search, select, retrain, target. Any of them can be set with
    --set KEY=VALUE, or in a file that is given with --config. A preset replaces most defaults: what a run
    would use is shown by its --dry-run.
    """
    from dataclasses import asdict

    from dsonas_hw.config.fields import list_fields
    from dsonas_hw.errors import UserError, closest

    fields = list_fields()
    shown = [field for field in fields if not prefix or f"{field.key}.".startswith(f"{prefix}.")]
    if not shown:
        sections = dict.fromkeys(field.key.rpartition(".")[0] for field in fields)
        known = [*(section for section in sections if section), *(field.key for field in fields)]
        raise UserError(f"no field or section {prefix!r}. {closest(prefix, known)}")
    if as_json:
        print_json({"fields": [asdict(field) for field in shown]})
        return
    for field in shown:
        default = (
            "" if field.default is None else f"  [default: {json.dumps(field.default, ensure_ascii=False)}]"
        )
        click.echo(f"{field.key}: {field.range}{default}")
        click.echo(textwrap.fill(field.meaning, 100, initial_indent="    ", subsequent_indent="    "))
