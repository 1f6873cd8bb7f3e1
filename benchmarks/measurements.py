"""Third-party measurements as lists of `Observation`: what ran, on what, and how long it took.

The CSV files are not part of this repository; docs/estimator.md names their sources. Every reader takes the
directory that holds them.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.known_networks import fbnet_kernels, nasbench201_kernels, ofa_mobilenet_v3_kernels
from dsonas_hw.kernel.spec import Kernel

#: Names used by the tables → devices/*.toml.
DEVICES = {
    "2080ti": "2080ti",
    "titan_rtx": "titan-rtx",
    "Tesla P100-PCIE-16GB": "p100",
    "Tesla P4": "p4",
    "Tesla T4": "t4",
    "Tesla V100-PCIE-32GB": "v100-pcie",
    "TITAN X (Maxwell)": "titan-x-maxwell",
    "Tesla M40": "m40",
    "Tesla P100": "p100-sxm2",  # its matrix products reach 98 % of the PCIe card's peak
    "Tesla V100": "v100",
    "RTX 2080 Ti": "2080ti",
    "TITAN RTX": "titan-rtx",
    "RTX 3090": "rtx3090",
    "RTX 4090": "rtx4090",
}


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measured latency."""

    source: str
    device: str
    runtime: str
    precision: str
    kernels: Mapping[Kernel, int]
    """Kernel → how often it ran."""
    latency_ms: float
    network: str
    """Equal for measurements of one network or kernel shape on several devices."""
    host: str | None = None
    """Which machine launched it; None: single kernels, timed on the GPU."""
    batch_size: int = 1

    @property
    def is_network(self) -> bool:
        return self.host is not None

    @property
    def table(self) -> tuple[str, str, str, int]:
        """Source, device, precision and, for networks, batch size: what one error is reported for."""
        return (self.source, self.device, self.precision, self.batch_size if self.is_network else 0)


def _rows(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(text.splitlines()))


def _pick(rows: list[dict[str, str]], count: int | None, seed: int) -> list[dict[str, str]]:
    if count is None or count >= len(rows):
        return rows
    return random.Random(seed).sample(rows, count)


def read_neusight(directory: Path, count: int | None = None, seed: int = 0) -> Iterator[Observation]:
    """3×3 convolutions, fp32; `count` shapes, each on all devices."""
    rows = _rows(directory / "neusight_conv.csv.gz")

    def shape(row: dict[str, str]) -> tuple[int, ...]:
        return tuple(int(row[name]) for name in ("batch", "cin", "hin", "cout"))

    shapes = sorted({shape(row) for row in rows})
    chosen = set(shapes if count is None else random.Random(seed).sample(shapes, count))
    for row in rows:
        if shape(row) in chosen:
            n, c, h, out = shape(row)
            yield _single(
                "neusight", row["device"], "eager", "fp32", _conv(n, c, h, out, 3), row["latency_ms"]
            )


def read_deepbench(directory: Path) -> Iterator[Observation]:
    """cuDNN convolutions and cuBLAS matrix products, fp32 and fp16 on tensor cores."""
    precisions = {"fp32": "fp32", "fp16_mixed": "fp16"}
    for row in _rows(directory / "deepbench_conv.csv"):
        if row["precision"] in precisions and row["fwd_ms"] and float(row["fwd_ms"]) > 0:
            n, c, w, h, out, fw, fh = (int(row[name]) for name in ("N", "C", "W", "H", "K", "fw", "fh"))
            kernel = Kernel(
                op="conv",
                inputs=((n, c, h, w),),
                output=(n, out, int(row["out_h"]), int(row["out_w"])),
                kernel_size=(fh, fw),
                stride=(int(row["stride_h"]), int(row["stride_w"])),
                num_weights=out * c * fh * fw,
            )
            precision = precisions[row["precision"]]
            yield _single("deepbench_conv", row["device"], "eager", precision, kernel, row["fwd_ms"])
    for row in _rows(directory / "deepbench_gemm.csv"):
        if row["precision"] in precisions:
            m, n, k = (int(row[name]) for name in ("M", "N", "K"))
            kernel = Kernel(op="gemm", inputs=((n, k),), output=(n, m), num_weights=m * k)
            precision = precisions[row["precision"]]
            yield _single("deepbench_gemm", row["device"], "eager", precision, kernel, row["time_ms"])


def read_tinynas(directory: Path, count: int | None = None, seed: int = 0) -> Iterator[Observation]:
    """Convolutions in TensorRT on a V100: fp32, fp16, int8; `count` rows per precision and type."""
    groups: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in _rows(directory / "tinynas_v100_trt_conv.csv.gz"):
        groups.setdefault((row["precision"], row["conv_type"]), []).append(row)
    for (precision, conv_type), rows in sorted(groups.items()):
        for row in _pick(rows, count, seed):
            n, c, h, out, k, s = (int(row[name]) for name in ("batch", "cin", "hin", "cout", "k", "stride"))
            depthwise = conv_type == "Depthwise"
            kernel = _conv(n, c, h, c if depthwise else out, k, s, groups=c if depthwise else 1)
            if row["elmt_fused"] == "1":
                kernel = Kernel(
                    op="conv",
                    inputs=(*kernel.inputs, kernel.output),
                    output=kernel.output,
                    kernel_size=kernel.kernel_size,
                    stride=kernel.stride,
                    num_weights=kernel.num_weights,
                    epilogue=("add",),
                )
            source = "tinynas_depthwise" if depthwise else "tinynas_conv"
            yield _single(source, "Tesla V100", "tensorrt", precision, kernel, row["latency_ms"])


def read_help(
    directory: Path, space: str, count: int | None = None, seed: int = 0, *, as_run_every: int = 0
) -> Iterator[Observation]:
    """Whole networks of HELP, PyTorch eager fp32: nasbench201, fbnet or ofa.

    Kernels are those of an exported ONNX file; of every `as_run_every`-th network those that the released
    code runs: an add more per node of NAS-Bench-201, hardswish as four kernels in once-for-all.
    """
    for index, row in enumerate(_pick(_rows(directory / f"help_{space}.csv.gz"), count, seed)):
        as_run = as_run_every > 0 and index % as_run_every == as_run_every - 1
        for column in row:
            device, _, batch = column.rpartition("_")
            if device not in DEVICES:
                continue
            batch_size = int(batch)
            yield Observation(
                source=space,
                device=DEVICES[device],
                runtime="eager",
                precision="fp32",
                kernels=Counter(_help_kernels(space, row, batch_size, as_run)),
                latency_ms=float(row[column]),
                network=f"{space}:{row['idx']}",
                host=f"{space}:{device}",
                batch_size=batch_size,
            )


def _help_kernels(space: str, row: dict[str, str], batch_size: int, as_run: bool) -> list[Kernel]:
    def numbers(name: str) -> list[int]:
        return [int(value) for value in row[name].split("-")]

    if space == "nasbench201":
        return nasbench201_kernels(row["arch"], batch_size, first_adds=as_run)
    if space == "fbnet":
        return fbnet_kernels(numbers("op_idx_list"), batch_size)
    return ofa_mobilenet_v3_kernels(
        numbers("ks"), numbers("e"), numbers("d"), int(row["r"]), batch_size, composed_activations=as_run
    )


def read_torchvision(directory: Path) -> Iterator[Observation]:
    """torchvision networks, batch 12, fp32 and fp16, with the copy of the input."""
    from benchmarks.torch_tracing import torchvision_kernels

    for row in _rows(directory / "tv_gpu_bench12.csv"):
        yield Observation(
            source="torchvision",
            device=DEVICES[row["device"]],
            runtime="eager",
            precision={"float": "fp32", "half": "fp16"}[row["precision"]],
            kernels=torchvision_kernels(row["model"], int(row["batch"]), int(row["img_size"])),
            latency_ms=float(row["median_ms"]),
            network=f"torchvision:{row['model']}",
            host=f"torchvision:{row['device']}:{row['run']}",
            batch_size=int(row["batch"]),
        )


def read_timm(directory: Path, num_models: int, seed: int = 0) -> Iterator[Observation]:
    """timm networks, eager autocast fp16, channels first, large batches; models that trace completely."""
    from benchmarks.torch_tracing import timm_kernels

    rows = [
        row
        for row in _rows(directory / "timm_gpu.csv.gz")
        if row["layout"] == "nchw" and row["compile"] == "eager" and row["torch"] != "1.13"
    ]
    models = sorted({row["model"] for row in rows})
    random.Random(seed).shuffle(models)
    found = 0
    for model in models:
        used = False
        for row in rows:
            if row["model"] != model:
                continue
            batch_size = int(float(row["batch"]))
            kernels = timm_kernels(model, batch_size, int(row["img_size"]))
            if kernels is None:
                break
            used = True
            yield Observation(
                source="timm",
                device=DEVICES[row["device"]],
                runtime="eager",
                precision="fp16",
                kernels=kernels,
                latency_ms=float(row["step_time_ms"]),
                network=f"timm:{model}",
                host=f"timm:{row['device']}",
                batch_size=batch_size,
            )
        found += used
        if found == num_models:
            return


def _conv(n: int, cin: int, size: int, cout: int, k: int, stride: int = 1, groups: int = 1) -> Kernel:
    out = (size + 2 * (k // 2) - k) // stride + 1
    return Kernel(
        op="conv",
        inputs=((n, cin, size, size),),
        output=(n, cout, out, out),
        kernel_size=(k, k),
        stride=(stride, stride),
        groups=groups,
        num_weights=cout * (cin // groups) * k * k,
    )


def _single(
    source: str, device: str, runtime: str, precision: str, kernel: Kernel, latency: str
) -> Observation:
    return Observation(
        source=source,
        device=DEVICES[device],
        runtime=runtime,
        precision=precision,
        kernels={kernel: 1},
        latency_ms=float(latency),
        network=kernel.key,
        batch_size=kernel.batch_size,
    )
