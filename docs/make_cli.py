"""Write docs/cli.md, the reference of the command line, from the commands themselves.

python docs/make_cli.py            write it
python docs/make_cli.py --check    exit 1 if it is not up to date
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from dsonas_hw.cli.main import COMMANDS, cli

TARGET = Path(__file__).with_name("cli.md")
WIDTH = 100


def reference() -> str:
    """The whole document."""
    parts = [
        "# Command line\n",
        "Written by `python docs/make_cli.py` from the commands themselves; do not edit.\n",
        "Exit codes: 0 done, 1 the answer is no (a budget is missed, a job of a study failed), 2 bad usage\n"
        "or input (one line on stderr), 3 only an estimate was possible, 130 interrupted.\n",
        _section(cli, "dsonas-hw"),
    ]
    for name in COMMANDS:
        command: click.Command = import_module(f"dsonas_hw.cli.{name}").command
        parts.append(_section(command, f"dsonas-hw {name}"))
    return "\n".join(parts)


def _section(command: click.Command, name: str) -> str:
    context = click.Context(
        command, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )  # fmt: skip
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    return f"## {name}\n\n```text\n{text}\n```\n"


def main() -> None:
    text = reference()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET.name} is not up to date; run: python docs/make_cli.py")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
