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
    "1080ti": "1080ti",
    "GTX 1080 Ti": "1080ti",
    "GeForce GTX 1080 Ti": "1080ti",
    "GeForce GTX 1080": "gtx1080",
    "t4": "t4",
    "v100": "v100",
    "v100-sxm2-16gb": "v100",
    "v100-sxm2-32gb": "v100",
    "v100-sxm3-32gb": "v100",
    "m40": "m40",
    "m60": "m60",
    "jetson-nano": "jetson-nano",
    "jetson-nano-2gb": "jetson-nano",
    "jetson-tx2": "jetson-tx2",
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
    for row in _rows(directory / "tv_gpu_bench12.csv"):
        size = int(row["img_size"])
        observation = _traced(
            f"torchvision:{row['model']}",
            (int(row["batch"]), size, size),
            source="torchvision",
            device=DEVICES[row["device"]],
            runtime="eager",
            precision={"float": "fp32", "half": "fp16"}[row["precision"]],
            latency_ms=float(row["median_ms"]),
            host=f"torchvision:{row['device']}:{row['run']}",
        )
        if observation is not None:
            yield observation


def read_torch7(directory: Path) -> Iterator[Observation]:
    """Networks that torchvision has too, forward, Torch7 with cuDNN 4 to 5.1, batch 16."""
    for row in _rows(directory / "torch7_cnnbench.csv"):
        family, _, depth = row["model"].partition("-")
        name = f"resnet{depth}" if family == "resnet" else row["model"]
        if row["use_cudnn"] != "1" or name not in TORCH7_NETWORKS:
            continue
        observation = _traced(
            f"torchvision:{name}",
            (int(row["batch"]), int(row["h"]), int(row["w"])),
            source="torch7",
            device=DEVICES[row["device"]],
            runtime="eager",
            precision="fp32",
            latency_ms=float(row["fwd_ms"]),
            host=f"torch7:{row['folder']}",
        )
        if observation is not None:
            yield observation


def read_timm(directory: Path, num_models: int, seed: int = 0) -> Iterator[Observation]:
    """timm networks, eager autocast fp16, channels first, large batches; models that trace completely."""
    rows = [
        row
        for row in _rows(directory / "timm_gpu.csv.gz")
        if row["layout"] == "nchw" and row["compile"] == "eager" and row["torch"] != "1.13"
    ]
    models = sorted({row["model"] for row in rows})
    random.Random(seed).shuffle(models)
    found = 0
    for model in models:
        observations = [
            _traced(
                f"timm:{model}",
                (int(float(row["batch"])), int(row["img_size"]), int(row["img_size"])),
                source="timm",
                device=DEVICES[row["device"]],
                runtime="eager",
                precision="fp16",
                latency_ms=float(row["step_time_ms"]),
                host=f"timm:{row['device']}:torch {row['torch']}",
                autocast=True,
            )
            for row in rows
            if row["model"] == model
        ]
        complete = [observation for observation in observations if observation is not None]
        yield from complete
        found += bool(complete)
        if found == num_models:
            return


def read_others(directory: Path) -> Iterator[Observation]:
    """Networks that today's torchvision or timm have too: TensorRT, eager, MXNet, TensorFlow, by many.

    MXNet and TensorFlow run what an eager framework runs, launched by another host. Left out: rows that look
    wrong, copies of others, and the older of two rounds of PaddleClas on a V100.
    """
    for row in _rows(directory / "networks_by_others.csv.gz"):
        framework = row["runtime"]
        runtime = "tensorrt" if framework == "tensorrt" else "eager"
        if row["gpu"] not in DEVICES or framework not in ("tensorrt", "eager", "mxnet", "tensorflow"):
            continue
        name = row["standard_name"] or _EQUAL_NETWORKS.get(row["network"], "")
        if not name or name.startswith(_OTHERWISE) or not row["batch_size"] or _is_unusable(row):
            continue
        version = row["runtime_version"].partition(",")[0]
        source = row["source"] if framework in ("tensorrt", "eager") else f"{row['source']} {framework}"
        observation = _traced(
            name,
            (int(float(row["batch_size"])), int(row["input_height"]), int(row["input_width"])),
            source=source,
            device=DEVICES[row["gpu"]],
            runtime=runtime,
            precision={"amp": "fp16"}.get(row["precision"], row["precision"]),
            latency_ms=float(row["latency_ms"]),
            host=f"{source}:{row['gpu']}:{version if source != 'paddleclas' else 'TensorRT'}",
            autocast=row["precision"] == "amp",
        )
        if observation is not None:
            yield observation


#: Networks of fb.resnet.torch and Caffe that torchvision has too.
TORCH7_NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "vgg16", "vgg19")
#: TF-slim's networks without a standard name; the stride of a bottleneck lies on another of its convolutions.
_EQUAL_NETWORKS = {
    "resnet_v1_50": "torchvision:resnet50",
    "resnet_v1_101": "torchvision:resnet101",
    "resnet_v1_152": "torchvision:resnet152",
}
#: Traced with scales behind every activation, which an exported network has no more.
_OTHERWISE = ("timm:hgnetv2_b0", "timm:hgnetv2_b1", "timm:hgnetv2_b2", "timm:hgnetv2_b3")
_UNUSABLE = (
    "two GPUs", "batch and GPU", "includes input/output copies", "duplicate of", "runtime not stated",
    "equals the fp32", "about twice", "precision of the baseline", "fp16 slower", "throughput drops",
    "implies ", "latency falls", "per-image latency",
)  # fmt: skip


def _is_unusable(row: Mapping[str, str]) -> bool:
    older_round = (
        row["source"] == "paddleclas" and row["gpu"] == "v100" and "model_list" in row["source_file"]
    )
    is_copy = row["network"].endswith(("_ssld", "_v2")) or "same architecture" in row["remark"]
    return older_round or is_copy or row["suspicious"].startswith(_UNUSABLE)


def _traced(
    name: str,
    shape: tuple[int, int, int],
    *,
    source: str,
    device: str,
    runtime: str,
    precision: str,
    latency_ms: float,
    host: str,
    autocast: bool = False,
) -> Observation | None:
    """A network of torchvision or timm at (batch, height, width); None if it does not trace.

    autocast: weights are stored in fp32, and every inference converts them.
    """
    from benchmarks.torch_tracing import network_kernels

    kernels = network_kernels(name, *shape, fuse=runtime != "eager")
    if kernels is None:
        return None
    if autocast:
        kernels = Counter(kernels) + weight_casts(kernels)
    return Observation(
        source=source,
        device=device,
        runtime=runtime,
        precision=precision,
        kernels=kernels,
        latency_ms=latency_ms,
        network=name if shape[1:] == (224, 224) else f"{name}@{shape[1]}x{shape[2]}",
        host=host,
        batch_size=shape[0],
    )


def weight_casts(kernels: Mapping[Kernel, int]) -> Counter[Kernel]:
    """A copy of the weights of every convolution and linear layer."""
    casts: Counter[Kernel] = Counter()
    for kernel, count in kernels.items():
        if kernel.kind in ("conv", "gemm") and kernel.num_weights:
            shape = (kernel.num_weights,)
            casts[Kernel(op="copy", inputs=(shape,), output=shape, function="cast")] += count
    return casts


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
