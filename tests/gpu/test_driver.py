"""What the driver says of a real card: known, awake under load, counting its energy."""

from __future__ import annotations

import pytest
import torch

from dsonas_hw.device.nvml import open_nvml
from dsonas_hw.device.watch import watch_gpu
from dsonas_hw.measure.energy import measure_energy
from dsonas_hw.runtime.cuda_order import first_cuda_gpu
from dsonas_hw.runtime.detect import DetectedDevice

pytestmark = pytest.mark.gpu


def busy(seconds: float) -> None:
    """Matrix products for about that long, which the GPU still works on when this returns."""
    a = torch.randn(4096, 4096, device="cuda")
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    a @ a
    start.record()
    a @ a
    end.record()
    torch.cuda.synchronize()
    for _ in range(int(1e3 * seconds / start.elapsed_time(end))):
        a @ a


def test_cuda_and_the_driver_speak_of_the_same_card(gpu: DetectedDevice) -> None:
    cuda = first_cuda_gpu()
    assert cuda is not None
    assert cuda.uuid == gpu.uuid
    assert cuda.num_sms == torch.cuda.get_device_properties(0).multi_processor_count


def test_the_card_is_in_the_catalogue_with_its_cores(gpu: DetectedDevice) -> None:
    if gpu.device is None:
        pytest.skip(f"no device file describes {gpu.title}")
    assert gpu.index is not None
    with open_nvml() as nvml:
        cores = nvml.gpu(gpu.index).num_cores
    assert cores == gpu.device.num_sms * gpu.device.cuda_cores_per_sm
    assert torch.cuda.get_device_properties(0).multi_processor_count == gpu.device.num_sms


def test_a_look_under_load_finds_the_gpu_at_work(gpu: DetectedDevice) -> None:
    assert gpu.index is not None
    busy(0.5)
    with watch_gpu(gpu.index) as watch:
        busy(0.2)
        watch.look()
        torch.cuda.synchronize()
    (state,) = watch.states
    assert state.sm_clock_mhz is not None
    highest_mhz = gpu.device.boost_clock_mhz if gpu.device else state.sm_clock_mhz
    assert state.sm_clock_mhz > 0.4 * highest_mhz


def test_energy_of_full_work_lies_below_the_card_s_limit(gpu: DetectedDevice) -> None:
    assert gpu.index is not None
    a = torch.randn(4096, 4096, device="cuda")
    with open_nvml() as nvml:
        card = nvml.gpu(gpu.index)
        limit_w = card.settings().power_limit_w or 1000.0
        measured = measure_energy(lambda: a @ a, torch.cuda.synchronize, meter=card, num_windows=6)
    assert 0.2 * limit_w < measured.power_w < 1.15 * limit_w
    if gpu.device is not None and gpu.device.has_energy_counter:
        assert measured.method == "counter"
