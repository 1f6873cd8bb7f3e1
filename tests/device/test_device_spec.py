"""The shipped datasheets, and the checks on anybody else's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from dsonas_hw.device.datasheet import admits
from dsonas_hw.device.spec import list_devices, load_device, normalise_name
from dsonas_hw.errors import DeviceError
from dsonas_hw.estimate.estimate import EstimatedLatency
from dsonas_hw.target import Target

REQUIRED = [
    *("1080ti", "titan-xp", "2080ti", "titan-rtx", "v100", "t4", "a100", "rtx3090", "rtx4090", "rtx5090"),
    *("h100", "jetson-orin"),
    *("p100", "p4", "gtx1080", "titan-x-maxwell", "m40", "a10g", "l4"),  # occur in published measurements
]

VALID = """
title = "My card"
aliases = ["mine"]
nvml_names = ["My Card"]
architecture = "Ampere"
compute_capability = "8.6"
num_sms = 10
cuda_cores_per_sm = 128
boost_clock_mhz = 1000
memory_bandwidth_gb_s = 100
l2_bytes = 1048576
memory_bytes = 8589934592
power_w = 100
has_energy_counter = true
sources = ["its box"]

[peak_tflops]
fp32 = 2.56
fp16_tensor = 10.2
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory; returns the folder for the user's own devices."""
    monkeypatch.setenv("DSONAS_HW_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "devices"
    folder.mkdir(parents=True)
    return folder


def test_a_generation_newer_than_all_that_are_known_may_have_any_name(home: Path) -> None:
    text = VALID.replace('"Ampere"', '"Next"').replace('"8.6"', '"15.0"')
    (home / "mycard.toml").write_text(text)
    assert load_device("mycard").architecture == "Next"


def test_numbers_that_no_source_confirms_are_told_with_every_estimate(home: Path) -> None:
    (home / "mycard.toml").write_text(VALID)
    assert load_device("mycard").provenance == "its datasheet"
    (home / "mycard.toml").write_text(f'unconfirmed = "clock and L2"\n{VALID}')
    device = load_device("mycard")
    assert "clock and L2 not confirmed" in device.provenance
    target = Target(device="mycard", runtime="eager")
    assert device.provenance in EstimatedLatency(device, target).disclaimer


@pytest.mark.parametrize("name", REQUIRED)
def test_required_devices_are_shipped(name: str) -> None:
    assert load_device(name).name == name


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("gtx1080ti", "1080ti"),
        ("NVIDIA GeForce GTX 1080 Ti", "1080ti"),
        ("GTX 1080 Ti", "1080ti"),
        ("1080_TI", "1080ti"),
        ("Tesla V100-PCIE-32GB", "v100-pcie"),
        ("TITAN X (Maxwell)", "titan-x-maxwell"),
        ("TITAN X (Pascal)", "titan-x-pascal"),
        ("TITAN RTX", "titan-rtx"),
        ("Tesla T4", "t4"),
        ("Quadro RTX 6000", "quadro-rtx-6000"),
        ("RTX 6000 Ada Generation", "rtx6000-ada"),
        ("NVIDIA A100-SXM4-40GB", "a100"),
    ],
)
def test_a_device_answers_to_every_spelling(spelling: str, name: str) -> None:
    assert load_device(spelling).name == name


def test_no_two_devices_share_a_name() -> None:
    owner: dict[str, str] = {}
    for device in list_devices():
        for name in {device.name, device.title, *device.aliases, *device.nvml_names}:
            assert owner.setdefault(normalise_name(name), device.name) == device.name, name


def test_datasheet_goldens() -> None:
    card = load_device("1080ti")
    # 28 SMs × 128 cores × 2 × 1582 MHz = 11.34 TFLOPS; 352 bit × 11.008 Gb/s / 8 = 484.4 GB/s
    assert card.num_sms * card.cuda_cores_per_sm * 2 * card.boost_clock_mhz / 1e6 == pytest.approx(
        11.34, abs=0.005
    )
    assert card.memory_bandwidth_gb_s == pytest.approx(352 * 11.008 / 8, rel=1e-3)
    assert card.compute_capability == (6, 1)
    assert card.peak("fp16_tensor", "fp32") == 11.34
    assert card.peak("fp16_tensor") is None


def test_laws_of_the_shipped_datasheets() -> None:
    generation = {5: "Maxwell", 6: "Pascal", 9: "Hopper", 12: "Blackwell"}
    for device in list_devices():
        major, minor = device.compute_capability
        assert generation.get(major, device.architecture) == device.architecture
        assert ("fp16_tensor" in device.peak_tflops) == ((major, minor) >= (7, 0)), device.name
        assert ("tf32_tensor" in device.peak_tflops) == (major >= 8), device.name
        # The tensor cores of one SM do a whole multiple of the CUDA cores' work.
        if "fp16_tensor" in device.peak_tflops:
            assert device.peak_tflops["fp16_tensor"] > 1.9 * device.peak_tflops["fp32"], device.name
        assert device.sources


def test_the_example_of_the_docs_with_other_sms_and_the_same_peaks_is_refused(home: Path) -> None:
    text = (Path(str(files("dsonas_hw.devices"))) / "rtx4070ti.toml").read_text()
    (home / "rtx4070-super.toml").write_text(text.replace("num_sms = 60", "num_sms = 56"))
    with pytest.raises(DeviceError, match=r"peak_tflops\.fp32 = \S+ contradicts 56 SMs"):
        load_device("rtx4070-super")


def test_the_cpu_is_called_local() -> None:
    with pytest.raises(DeviceError, match="this machine's CPU is 'local'"):
        load_device("CPU")


def test_a_users_device_is_found_and_wins(home: Path) -> None:
    (home / "mycard.toml").write_text(VALID)
    (home / "1080ti.toml").write_text(VALID.replace("mine", "other").replace("My card", "Overclocked"))
    assert load_device("mine").name == "mycard"
    assert load_device("1080ti").title == "Overclocked"
    assert {"mycard", "titan-xp"} <= {device.name for device in list_devices()}


def test_fingerprint_follows_the_numbers_not_the_words(home: Path) -> None:
    (home / "a.toml").write_text(VALID)
    (home / "b.toml").write_text(VALID.replace("its box", "her box"))
    (home / "c.toml").write_text(VALID.replace("bandwidth_gb_s = 100", "bandwidth_gb_s = 101"))
    a, b, c = (load_device(name).fingerprint for name in "abc")
    assert a == b != c


def test_unknown_device_lists_close_matches() -> None:
    with pytest.raises(DeviceError, match=r"unknown device '1080to'. Did you mean .*1080ti"):
        load_device("1080to")
    with pytest.raises(DeviceError, match=r"Known: .*titan-xp"):
        load_device("zzzzzz")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "..", "a\0b"])
def test_a_name_is_never_a_path(name: str) -> None:
    with pytest.raises(DeviceError, match="unknown device"):
        load_device(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_sms = 10", "num_sms = 0", "num_sms = 0 is impossible"),
        ("num_sms = 10", "num_sms = -3", "impossible"),
        ("num_sms = 10", "num_sms = 10.5", "must be a whole number"),
        ("num_sms = 10", "num_sms = true", "must be a whole number"),
        ("num_sms = 10", 'num_sms = "10"', "must be a whole number"),
        ("num_sms = 10", "", "'num_sms' is missing"),
        ("boost_clock_mhz = 1000", "boost_clock_mhz = nan", "impossible"),
        ("boost_clock_mhz = 1000", "boost_clock_mhz = inf", "impossible"),
        ("boost_clock_mhz = 1000", "boost_clock_mhz = 1.0", "impossible"),
        ("bandwidth_gb_s = 100", "bandwidth_gb_s = 1e12", "impossible"),
        ("fp32 = 2.56", "fp32 = 25.6", "contradicts 10 SMs"),
        ("num_sms = 10", "num_sms = 9", "peak_tflops.fp32 = 2.56 contradicts 9 SMs"),
        ("fp16_tensor = 10.2", "fp16_tensor = 9", "peak_tflops.fp16_tensor = 9 contradicts 10 SMs"),
        ('"Ampere"', '"Ampre"', "contradicts compute_capability 8.6, which is Ampere"),
        ("fp32 = 2.56", "", "peak_tflops.fp32 is missing"),
        ("fp32 = 2.56", "fp32 = 2.56\nfp23 = 1", "peak_tflops of 'fp23'.*fp32"),
        ("[peak_tflops]", "[peak]", "unknown key 'peak'.*peak_tflops"),
        ('"8.6"', '"6.1"', "tensor cores came with"),
        ('"8.6"', "8.6", "compute_capability must be"),
        ('"8.6"', '"sm_86"', "like"),
        ("l2_bytes = 1048576", "l2_bytes = 8589934592", "not smaller than memory_bytes"),
        ('aliases = ["mine"]', 'aliases = "mine"', "must be a list of texts"),
        ('title = "My card"', "title = 3", "non-empty text"),
        ("has_energy_counter = true", "has_energy_counter = 1", "true or false"),
        ("fp32 = 2.56", "fp32 = 2.56\n[runtimes.tensorrt]\nversions = '8'", "needs the keys"),
        ('title = "My card"', "title = ", "not valid TOML"),
        ('title = "My card"', "x = " + "[" * 5000, "not valid TOML"),
        ('title = "My card"', "#" * 70_000, "larger than"),
    ],
)
def test_impossible_files_are_refused_by_name(home: Path, old: str, new: str, message: str) -> None:
    assert old in VALID
    (home / "mycard.toml").write_text(VALID.replace(old, new))
    with pytest.raises(DeviceError, match=message) as caught:
        load_device("mycard")
    assert "mycard.toml" in str(caught.value)


def test_bounds_of_runtimes_are_checked(home: Path) -> None:
    runtime = '\n[runtimes.tensorrt]\nversions = "{}"\ninstall = "pip"\nsource = "notes"\n'
    (home / "good.toml").write_text(VALID + runtime.format(">=8.0,<10.1"))
    assert load_device("good").runtimes["tensorrt"].versions == ">=8.0,<10.1"
    (home / "bad.toml").write_text(VALID + runtime.format("8 or 9"))
    with pytest.raises(DeviceError, match=r"runtimes.tensorrt.versions"):
        load_device("bad")


@pytest.mark.parametrize(
    ("bounds", "admitted", "refused"),
    [
        (">=8.6,<10.0", ["8.6", "8.6.1.post1", "9.3.0"], ["8.5.3", "10", "10.0.1", "11.4.0.106"]),
        ("<2.15", ["2.14.1+cu126", "2.9"], ["2.15.0", "3.0"]),
        ("==8.6", ["8.6.1", "8.6"], ["8.5", "8.7"]),
        ("<=8.6", ["8.6.1", "8.5"], ["8.7"]),
        (">8.6", ["8.7", "9"], ["8.6.1", "8.6"]),
        ("none", [], ["1.0"]),
        ("", ["1.0"], []),
    ],
)
def test_bounds_of_versions(bounds: str, admitted: list[str], refused: list[str]) -> None:
    assert [version for version in admitted if not admits(bounds, version)] == []
    assert [version for version in refused if admits(bounds, version)] == []


def test_runtimes_follow_the_compute_capability() -> None:
    """What a library supports depends on the generation alone (and on whether it is a Jetson)."""
    seen: dict[tuple[object, ...], tuple[str, object]] = {}
    for device in list_devices():
        assert set(device.runtimes) >= {"ort-cuda", "tensorrt", "eager"}, device.name
        kind = (device.compute_capability, device.name.startswith("jetson"))
        other, runtimes = seen.setdefault(kind, (device.name, device.runtimes))
        assert device.runtimes == runtimes, f"{device.name} differs from {other}"


def test_a_pascal_card_needs_the_old_stack() -> None:
    card = load_device("1080ti")
    assert admits(card.runtimes["tensorrt"].versions, "8.6.1")
    assert not admits(card.runtimes["tensorrt"].versions, "10.0.1")
    assert not admits(card.runtimes["ort-cuda"].versions, "1.27.0")
    assert not admits(card.runtimes["eager"].cuda, "13.0")
    assert "cu126" in card.runtimes["eager"].install


def test_binary_and_unreadable_files(home: Path) -> None:
    (home / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeviceError, match="not valid TOML"):
        load_device("binary")
    (home / "folder.toml").mkdir()
    with pytest.raises(DeviceError, match="cannot read the device file"):
        load_device("folder")


def test_a_peak_stated_at_another_clock_is_scaled_to_the_boost_clock() -> None:
    """Hopper's whitepaper: tensor cores at 1830 MHz (PCIe: 1620), everything else at the boost clock."""
    for name in ("h100", "h100-pcie", "h200"):
        card = load_device(name)
        assert card.tensor_clock_mhz is not None
        # SMs × 4096 operations of fp16 a clock × the clock that the peak is stated at
        stated = card.num_sms * 4096 * card.tensor_clock_mhz / 1e6
        assert card.peak_tflops["fp16_tensor"] == pytest.approx(stated, rel=0.002)
        at_boost = card.num_sms * 4096 * card.boost_clock_mhz / 1e6
        assert card.peak("fp16_tensor") == pytest.approx(at_boost, rel=0.002)
        assert card.peak("fp32") == card.peak_tflops["fp32"]
    assert load_device("a100").peak("fp16_tensor") == 312.0
