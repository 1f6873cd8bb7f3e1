"""Laws of the estimate: monotonic in work and hardware, intervals in order, constants with provenance."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dsonas_hw.estimate
from dsonas_hw.architecture.architecture import complete_architecture
from dsonas_hw.architecture.lower import lower
from dsonas_hw.device.spec import list_devices, load_device
from dsonas_hw.errors import DeviceError, ProfileError
from dsonas_hw.estimate.constants import SCHEMA_VERSION, load_constants, parse_constants
from dsonas_hw.estimate.estimate import EstimatedLatency, estimated_runtimes, load_estimate
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.space.space import SearchSpace
from dsonas_hw.target import Target

FOLDER = Path(dsonas_hw.estimate.__file__).parent


def conv(
    n: int = 32, c: int = 64, size: int = 28, out: int = 64, k: int = 3, stride: int = 1, groups: int = 1
) -> Kernel:
    side = (size - 1) // stride + 1
    return Kernel(
        op="conv",
        inputs=((n, c, size, size),),
        output=(n, out, side, side),
        kernel_size=(k, k),
        stride=(stride, stride),
        groups=groups,
        num_weights=out * (c // groups) * k * k,
    )


def relu(n: int = 32, c: int = 64, size: int = 28) -> Kernel:
    return Kernel(op="unary", inputs=((n, c, size, size),), output=(n, c, size, size), function="relu")


def pool(n: int = 256, c: int = 16, size: int = 32, k: int = 3) -> Kernel:
    shape = (n, c, size, size)
    return Kernel(op="avgpool", inputs=(shape,), output=shape, kernel_size=(k, k))


def eager(device: str = "2080ti", precision: str = "fp32") -> EstimatedLatency:
    return load_estimate(Target(device=device, runtime="eager", precision=precision, batch_size=32))


SIZES = st.sampled_from([16, 32, 48, 64, 96, 128, 192, 256])


@settings(max_examples=40, deadline=None)
@given(
    channels=SIZES, out=SIZES, size=st.sampled_from([7, 8, 14, 16, 28, 32, 56]), k=st.sampled_from([1, 3, 5])
)
def test_four_times_the_images_is_not_faster(channels: int, out: int, size: int, k: int) -> None:
    few, many = conv(16, channels, size, out, k), conv(64, channels, size, out, k)
    for constants in (load_constants(), dataclasses.replace(load_constants(), corrections={})):
        model = load_estimate(Target(device="2080ti", runtime="eager"), constants=constants)
        assert model.times([many])[0][0] >= model.times([few])[0][0]


@pytest.mark.parametrize("k", [1, 3])
def test_more_channels_take_longer(k: int) -> None:
    model = eager()
    times = [model.times([conv(256, c, 28, c, k)])[0][0] for c in (32, 128, 512)]
    assert times == sorted(times)


@pytest.mark.parametrize("runtime", ["eager", "tensorrt"])
@pytest.mark.parametrize("kernel", [relu(256), conv(256, k=1), conv(256, groups=64), pool()])
def test_more_bandwidth_is_not_slower(runtime: str, kernel: Kernel) -> None:
    device = load_device("1080ti")
    wide = dataclasses.replace(device, memory_bandwidth_gb_s=2 * device.memory_bandwidth_gb_s)
    slow, fast = (
        EstimatedLatency(d, Target(runtime=runtime, batch_size=256)).times([kernel])[0][0]
        for d in (device, wide)
    )
    assert fast <= slow * 1.25  # the learned correction also sees the ratio of arithmetic to memory
    if kernel.kind != "conv":
        assert fast <= slow


def test_a_bound_by_memory_is_the_bandwidth() -> None:
    # 256 × 256 × 56 × 56 floats, read and written: 2 × 205.5 M × 4 B = 1644 MB; at 616 GB/s that is 2.669 ms.
    ms = eager().times([relu(256, 256, 56)])[0][0]
    assert 2.669 < ms < 2.669 / 0.6


def test_tensor_cores_make_large_half_precision_convolutions_faster() -> None:
    big = conv(256, 256, 28, 256)
    assert eager("v100", "fp16").times([big])[0][0] < 0.5 * eager("v100").times([big])[0][0]
    # Pascal desktop cards have none, and halve the traffic only.
    assert eager("1080ti", "fp16").times([big])[0][0] > 0.7 * eager("1080ti").times([big])[0][0]


def test_pools_are_slow_on_pascal() -> None:
    # Address arithmetic: no 32-bit integer multiply-add before Volta.
    assert eager("1080ti").times([pool()])[0][0] > 1.5 * eager("2080ti").times([pool()])[0][0]


def test_eager_is_bound_by_the_host_at_batch_one() -> None:
    model = load_estimate(Target(device="v100", runtime="eager"))
    kernels = [conv(1, size=7), relu(1, size=7)] * 50
    gpu, host, _ = model.totals(kernels)
    assert host > 1.5 * gpu
    assert host < model.predict(kernels).value < 1.1 * host
    fused = load_estimate(Target(device="v100", runtime="tensorrt"))
    assert fused.predict([conv(1, size=7)] * 50).value < 0.7 * host


def test_one_kernel_is_timed_without_the_host() -> None:
    model = load_estimate(Target(device="v100", runtime="eager"))
    gpu, host = model.times([conv(1, k=1)])[0]
    assert model.predict([conv(1, k=1)]).value == pytest.approx(gpu + model.network_ms)
    assert host > gpu


@pytest.mark.parametrize("runtime", estimated_runtimes())
def test_every_device_and_runtime_gives_an_ordered_interval(runtime: str) -> None:
    kernels = [conv(), relu(), conv(groups=64), pool(32), relu()]
    for device in list_devices():
        model = EstimatedLatency(device, Target(runtime=runtime, batch_size=32))
        found = model.predict(kernels)
        assert 0 < found.low < found.value < found.high < math.inf
        assert found.source == "estimated"
        assert "energy of " in model.why_not("energy")
        assert model.fuse is (runtime != "eager")
        assert all(model.kernel_cost(kernel) > 0 for kernel in kernels)


def test_latency_does_not_depend_on_the_order_or_on_what_was_asked_before() -> None:
    kernels = [conv(), relu(), pool(32)]
    once = eager().predict(kernels).value
    other = eager()
    other.predict([relu(8)])
    assert other.predict(kernels[::-1]).value == pytest.approx(once, rel=1e-12)


def test_views_cost_nothing_in_eager_and_additions_are_fused_in_tensorrt() -> None:
    shape = (32, 64, 28, 28)
    view = Kernel(op="copy", inputs=(shape,), output=shape, function="slice")
    assert eager().times([view]) == [(0.0, 0.0)]
    add = Kernel(op="sum", inputs=(shape, shape), output=shape)
    engine = load_estimate(Target(device="v100", runtime="tensorrt", batch_size=32))
    assert engine.times([add])[0][0] < 0.6 * engine.times([view])[0][0]


def test_refuses_what_it_cannot_estimate() -> None:
    with pytest.raises(ProfileError, match="ort-cpu"):
        load_estimate(Target(device="1080ti", runtime="ort-cpu"))
    with pytest.raises(DeviceError, match="int4"):
        load_estimate(Target(device="1080ti", runtime="tensorrt", precision="int4"))
    with pytest.raises(DeviceError, match="int8"):
        load_estimate(Target(device="m40", runtime="tensorrt", precision="int8"))
    with pytest.raises(ProfileError, match="without kernels"):
        eager().predict([])


def test_shipped_constants_say_where_they_come_from() -> None:
    data = json.loads((FOLDER / "constants.json").read_text())
    assert "fit_estimator" in data["provenance"]["command"]
    assert data["provenance"]["measurements"]
    assert "DeepBench" in data["provenance"]["sources"]
    assert (FOLDER / "corrections.json").stat().st_size < 400_000
    efficiencies = [name for name in data["shared"] if name.startswith("bandwidth_elementwise")]
    assert efficiencies
    assert all(0.3 < data["shared"][name] < 1.2 for name in efficiencies)
    constants = load_constants()
    assert constants.corrections_of(Target(runtime="ort-cuda")) is constants.corrections_of(
        Target(runtime="eager")
    )


def test_a_generation_without_measurements_takes_its_neighbours_factors() -> None:
    constants = load_constants()
    assert constants.resolve("Blackwell", Target(runtime="eager")) == constants.resolve(
        "Ada", Target(runtime="eager")
    )
    assert constants.resolve("Pascal", Target(runtime="eager"))["integer"] == 0.5
    shared = constants.resolve("Unheard-of", Target(runtime="eager"))
    assert shared == dict(constants.shared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"shared": None}, "positive"),
        ({"shared": {"launch_us": -1.0}}, "launch_us"),
        ({"corrections": {"eager/fp32": {"matrix": {"base": 0.0}}}}, "damaged"),
        (
            {
                "corrections": {
                    "e/f": {"matrix": {"base": 0, "trust_thin": True, "trees": [[[0, 1.0, 5, 6]]]}}
                }
            },
            "damaged",
        ),
    ],
)
def test_damaged_constants_are_refused(change: dict[str, object], message: str) -> None:
    data = json.loads((FOLDER / "constants.json").read_text()) | change
    with pytest.raises(ProfileError, match=message):
        parse_constants(data)
    assert SCHEMA_VERSION == 2


def test_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; from dsonas_hw.estimate.estimate import load_estimate;"
        "from dsonas_hw.target import Target;"
        "load_estimate(Target(device='1080ti', runtime='eager'));"
        "assert not {'torch', 'scipy', 'sklearn', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_on_a_fast_gpu_eager_is_bound_by_the_host_until_the_batch_is_large() -> None:
    """So a prediction may be the same for batches 1 and 8: the launches are, and the GPU waits for them."""
    space = SearchSpace(stages=(2, 2, 2), channels=48, input_shape=(3, 32, 32))
    found = {}
    for batch_size in (1, 8, 1024):
        model = load_estimate(Target(device="h100", runtime="eager", batch_size=batch_size))
        kernels = lower(complete_architecture(space), batch_size=batch_size, fuse=False)
        gpu_ms, host_ms, _ = model.totals(kernels)
        found[batch_size] = (gpu_ms, host_ms, model.predict(kernels).value)
    (gpu_1, host_1, all_1), (gpu_8, host_8, all_8), (gpu_many, host_many, all_many) = found.values()
    assert host_1 == host_8 == host_many
    assert gpu_1 < gpu_8 < host_8
    assert host_1 < all_1 < all_8 < 1.1 * host_1
    assert gpu_many > host_many
    assert all_many > 1.5 * all_8
