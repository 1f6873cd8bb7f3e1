"""`dsonas-hw devices`: what is known, what is here, and which runtime can serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsonas_hw.cli.common import console, json_option, print_json, say

if TYPE_CHECKING:
    from dsonas_hw.device.spec import Device
    from dsonas_hw.runtime.detect import DetectedDevice, Detection

EPILOG = """
\b
Examples:
  dsonas-hw devices                  # every known device, and what is here
  dsonas-hw devices --here           # only this machine, with the reason for every runtime that cannot run
  dsonas-hw devices 1080ti           # one device: datasheet, runtimes, versions to install
  dsonas-hw devices --json | jq -c 'select(.here)'

\b
Your own devices are TOML files in the folder `devices` of your data directory ($DSONAS_HW_HOME);
copy a shipped one as a start.
"""


@click.command(epilog=EPILOG)
@click.argument("name", required=False)
@click.option("--here", "only_here", is_flag=True, help="Only the devices of this machine.")
@json_option
def command(name: str | None, only_here: bool, as_json: bool) -> None:
    """List the known devices, or show one in full: which is here, which runtime can serve it, and why not."""
    from dsonas_hw.device.spec import name_conflicts
    from dsonas_hw.runtime.detect import detect_devices

    detection = detect_devices()
    rows = _select(detection, name, only_here)
    for remark in (*name_conflicts(), *detection.remarks):
        say(f"warning: {remark}")
    if as_json:
        for row in rows:
            print_json(row)
    elif name is not None:
        _print_details(rows[0])
    else:
        _print_table(rows, detection)


def _select(detection: Detection, name: str | None, only_here: bool) -> list[dict[str, Any]]:
    """One row per device: those that are here first, then the catalogue by name."""
    from dsonas_hw.device.spec import list_devices, load_device

    here = list(detection.devices)
    if name is not None:
        found = detection.find(name)
        if found is not None:
            return [_row(found.device, found, detection)]
        return [_row(load_device(name), None, detection)]
    rows = [_row(device.device, device, detection) for device in here]
    if not only_here:
        names = {device.name for device in here}
        rows += [_row(device, None, detection) for device in list_devices() if device.name not in names]
    return rows


def _row(device: Device | None, found: DetectedDevice | None, detection: Detection) -> dict[str, Any]:
    """A device for `--json`."""
    row: dict[str, Any] = {"name": found.name if found else device.name if device else None}
    row["title"] = found.title if found else device.title if device else None
    row["here"] = found is not None
    row["why_not_here"] = None if found else detection.no_gpu_reason or "no such GPU on this machine"
    row["fingerprint"] = found.fingerprint if found else device.fingerprint if device else None
    if found is not None:
        row["index"], row["uuid"], row["driver_version"] = found.index, found.uuid, found.driver_version
        row["compute_capability"] = found.compute_capability and "{}.{}".format(*found.compute_capability)
        row["runtimes"] = [
            {"runtime": s.runtime, "usable": s.usable, "reason": s.reason or None, "version": s.version}
            for s in found.runtimes
        ]
    elif device is not None:
        row["runtimes"] = [
            {"runtime": runtime, "usable": False, "reason": row["why_not_here"], "version": None}
            for runtime in device.runtimes
        ]
    if device is not None:
        row.update(_datasheet(device))
    return row


def _datasheet(device: Device) -> dict[str, Any]:
    return {
        "aliases": list(device.aliases),
        "architecture": device.architecture,
        "compute_capability": "{}.{}".format(*device.compute_capability),
        "num_sms": device.num_sms,
        "boost_clock_mhz": device.boost_clock_mhz,
        "peak_tflops": dict(device.peak_tflops),
        "memory_bandwidth_gb_s": device.memory_bandwidth_gb_s,
        "l2_bytes": device.l2_bytes,
        "memory_bytes": device.memory_bytes,
        "power_w": device.power_w,
        "has_energy_counter": device.has_energy_counter,
        "supported": {
            runtime: {
                "versions": support.versions,
                "cuda": support.cuda or None,
                "install": support.install,
                "source": support.source,
            }
            for runtime, support in device.runtimes.items()
        },
        "sources": list(device.sources),
        "unconfirmed": device.unconfirmed or None,
    }


def _print_table(rows: list[dict[str, Any]], detection: Detection) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("device", "architecture", "here", "runtimes"):
        table.add_column(heading, no_wrap=heading != "runtimes")
    for row in rows:
        table.add_row(
            f"[bold]{escape(str(row['name']))}[/bold]" if row["here"] else escape(str(row["name"])),
            escape(_architecture(row)),
            "[green]yes[/green]" if row["here"] else "no",
            escape(_runtimes(row)),
        )
    out.print(table)
    out.print("\n✓ runs here, – does not; what to install for it: dsonas-hw devices NAME")
    if detection.no_gpu_reason:
        out.print(f"No GPU here: {escape(detection.no_gpu_reason)}.", soft_wrap=True)
    for row in rows:
        for status in row["runtimes"] if row["here"] else ():
            if not status["usable"]:
                out.print(
                    f"{escape(str(row['name']))}, {status['runtime']}: {escape(str(status['reason']))}",
                    soft_wrap=True,
                )


def _architecture(row: dict[str, Any]) -> str:
    if row.get("architecture") is None:
        capability = row.get("compute_capability")
        return f"{capability}" if capability else "CPU"
    return f"{row['architecture']} {row['compute_capability']}"


def _runtimes(row: dict[str, Any]) -> str:
    if row["here"]:
        return "  ".join(
            f"✓ {status['runtime']} {status['version'] or ''}".rstrip()
            if status["usable"]
            else f"– {status['runtime']}"
            for status in row["runtimes"]
        )
    supported = row.get("supported", {}).items()
    return "  ".join(runtime for runtime, support in supported if support["versions"] != "none")


def _print_details(row: dict[str, Any]) -> None:
    from rich.markup import escape

    out = console()

    def line(key: str, value: object) -> None:
        out.print(f"[bold]{key:<22}[/bold] {escape(str(value))}", soft_wrap=True)

    line("device", f"{row['name']}: {row['title']}")
    if row.get("aliases"):
        line("also called", ", ".join(row["aliases"]))
    line("here", "yes" if row["here"] else f"no: {row['why_not_here']}")
    for key, label in (("uuid", "UUID"), ("driver_version", "driver"), ("fingerprint", "fingerprint")):
        if row.get(key):
            line(label, row[key])
    if "num_sms" in row:
        line("architecture", f"{row['architecture']}, compute capability {row['compute_capability']}")
        line("SMs", f"{row['num_sms']} at {row['boost_clock_mhz']:g} MHz boost")
        line("peak TFLOPS (dense)", ", ".join(f"{k} {v:g}" for k, v in row["peak_tflops"].items()))
        gib, mib = row["memory_bytes"] / 2**30, row["l2_bytes"] / 2**20
        line("memory", f"{gib:g} GiB at {row['memory_bandwidth_gb_s']:g} GB/s, L2 {mib:g} MiB")
        meter = "counter" if row["has_energy_counter"] else "integrated from power (no counter)"
        line("power", f"{row['power_w']:g} W; energy: {meter}")
    for status in row["runtimes"]:
        support = row.get("supported", {}).get(status["runtime"])
        if row["here"]:
            version = f" {status['version']}" if status["version"] else ""
            line(status["runtime"] + version, "yes" if status["usable"] else f"no: {status['reason']}")
        elif support["versions"] == "none":
            line(status["runtime"], f"no: {support['install']}")
        else:
            cuda = f" built for CUDA {support['cuda']}" if support["cuda"] else ""
            line(status["runtime"], f"{support['versions']}{cuda}; {support['install']}")
    if row.get("unconfirmed"):
        line("not confirmed", f"{row['unconfirmed']}, by any published source")
    for source in row.get("sources", ()):
        line("source", source)
