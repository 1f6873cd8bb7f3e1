"""Which devices are here, which runtime can serve each, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace

from dsonas_hw.device.cpu import local_cpu
from dsonas_hw.device.datasheet import Device, RuntimeSupport, admits
from dsonas_hw.device.fingerprint import short_hash
from dsonas_hw.device.gpu import Gpu
from dsonas_hw.device.nvml import Nvml, open_nvml
from dsonas_hw.device.same_card import describe, device_of
from dsonas_hw.device.spec import LOCAL, list_devices, load_device
from dsonas_hw.errors import DeviceError, MissingDependencyError
from dsonas_hw.runtime.base import Runtime
from dsonas_hw.runtime.libraries import Library
from dsonas_hw.runtime.registry import all_runtimes, get_runtime

DIVIDED = (
    "MIG divides this GPU, and a program gets a slice of it, which is no measurement of the card; "
    "as root: nvidia-smi -i {0} -mig 0"
)


@dataclass(frozen=True, kw_only=True)
class RuntimeStatus:
    """Whether a runtime can serve a device here."""

    runtime: str
    usable: bool
    reason: str = ""
    """Why not, and what to do; empty when it can."""
    version: str | None = None
    """Of the installed library."""


@dataclass(frozen=True, kw_only=True)
class DetectedDevice:
    """A device of this machine."""

    name: str
    """`local`, the catalogue's name, or the driver's name for a GPU that no file describes."""
    title: str
    fingerprint: str
    """Of this CPU, or of the GPU's model: a table measured on one card holds for its sisters."""
    device: Device | None
    """Its datasheet, if there is one."""
    index: int | None
    """Of the GPU, as the driver counts."""
    uuid: str | None
    driver_version: str | None
    compute_capability: tuple[int, int] | None
    runtimes: tuple[RuntimeStatus, ...]

    @property
    def lock_name(self) -> str:
        """What is locked while it is measured: the card itself, not its model."""
        return self.uuid or self.name

    def status(self, runtime: str) -> RuntimeStatus:
        """Whether this runtime can serve it."""
        for status in self.runtimes:
            if status.runtime == runtime:
                return status
        where = "an NVIDIA GPU" if self.name == LOCAL else f"the CPU (device {LOCAL})"
        return RuntimeStatus(runtime=runtime, usable=False, reason=f"runtime {runtime} runs on {where}")


@dataclass(frozen=True, kw_only=True)
class Detection:
    """Everything that is here."""

    devices: tuple[DetectedDevice, ...]
    """The CPU first, then the GPUs."""
    no_gpu_reason: str
    """Why there is no GPU; empty when there is one."""
    remarks: tuple[str, ...] = ()
    """A line for each GPU that does not answer, or that is not the card its name says."""

    def find(self, name: str) -> DetectedDevice | None:
        """The device of this name (or alias) if it is here."""
        if name != LOCAL:
            with suppress(DeviceError):
                name = load_device(name).name
        return next((device for device in self.devices if device.name == name), None)


def detect_devices(
    *,
    open_driver: Callable[[], AbstractContextManager[Nvml]] = open_nvml,
    find: Callable[[str], Library | None] = lambda runtime: get_runtime(runtime).library(),
) -> Detection:
    """Look at this machine; takes a fraction of a second and imports no framework.

    open_driver, find: stand-ins for tests.
    """
    libraries = {runtime.name: find(runtime.name) for runtime in all_runtimes()}
    devices = [_detect_cpu(libraries)]
    reason = ""
    remarks: list[str] = []
    try:
        with open_driver() as nvml:
            gpus = nvml.gpus()
            remarks += nvml.remarks
            for gpu in gpus:
                detected, remark = _detect_gpu(nvml, gpu, libraries)
                devices.append(detected)
                remarks += [remark] if remark else []
            if not gpus:
                reason = "; ".join(nvml.remarks) or "the NVIDIA driver sees no GPU"
    except (DeviceError, MissingDependencyError) as error:
        reason = str(error)
    return Detection(devices=tuple(devices), no_gpu_reason=reason, remarks=tuple(remarks))


def runtime_status(
    runtime: Runtime,
    *,
    support: Mapping[str, RuntimeSupport],
    title: str,
    library: Library | None,
    driver_cuda: tuple[int, int] | None,
) -> RuntimeStatus:
    """Whether the installed library can serve a GPU.

    support: by runtime, from the GPU's datasheet; empty when nothing is known about it.
    driver_cuda: the newest CUDA that the driver serves.
    """
    limits = support.get(runtime.name)
    reason = _why_not(runtime, limits, title, library, driver_cuda)
    return RuntimeStatus(
        runtime=runtime.name, usable=not reason, reason=reason, version=library.version if library else None
    )


def _why_not(
    runtime: Runtime,
    limits: RuntimeSupport | None,
    title: str,
    library: Library | None,
    driver_cuda: tuple[int, int] | None,
) -> str:
    """The first thing that stands in the way, or an empty text."""
    install = limits.install if limits else "see the library's own notes for this GPU"
    if limits is not None and limits.versions == "none":
        return f"no version that is driven here serves {title}; {install}"
    if library is None:
        return f"not installed; {install}"
    have = f"{library.distribution} {library.version}"
    if reason := runtime.why_not(library) or runtime.why_not_on_gpu(library, install):
        return reason
    if library.folder is None:
        return f"{have} is listed as installed, but its module is not there; reinstall it"
    if limits is not None and not admits(limits.versions, library.version):
        wanted = f"{library.distribution} {limits.versions}"
        return f"{title} needs {wanted}, installed is {library.version}; {install}"
    if limits is not None and library.cuda is not None and not admits(limits.cuda, library.cuda):
        return (
            f"the installed {have} is built for CUDA {library.cuda}, which has no code for {title} "
            f"(needs CUDA {limits.cuda}); {install}"
        )
    if (
        library.cuda is not None
        and driver_cuda is not None
        and int(library.cuda.split(".")[0]) > driver_cuda[0]
    ):
        return (
            f"the driver serves CUDA up to {driver_cuda[0]}.{driver_cuda[1]}, but {have} is built for CUDA "
            f"{library.cuda}; update the driver, or install an older build"
        )
    missing = runtime.missing_libraries(library)
    if missing:
        return f"{have} needs {', '.join(missing)}, not found on this machine; {install}"
    return ""


def _detect_cpu(libraries: Mapping[str, Library | None]) -> DetectedDevice:
    cpu = local_cpu()
    return DetectedDevice(
        name=LOCAL,
        title=cpu.title,
        fingerprint=cpu.fingerprint,
        device=None,
        index=None,
        uuid=None,
        driver_version=None,
        compute_capability=None,
        runtimes=tuple(_cpu_status(r, libraries[r.name]) for r in all_runtimes() if r.on_cpu),
    )


def _cpu_status(runtime: Runtime, library: Library | None) -> RuntimeStatus:
    if library is None:
        reason = f"not installed; pip install {runtime.module}"
        return RuntimeStatus(runtime=runtime.name, usable=False, reason=reason)
    reason = runtime.why_not(library)
    return RuntimeStatus(runtime=runtime.name, usable=not reason, reason=reason, version=library.version)


def _detect_gpu(nvml: Nvml, gpu: Gpu, libraries: Mapping[str, Library | None]) -> tuple[DetectedDevice, str]:
    """The GPU, and what is strange about it; nothing, as a rule.

    Raises:
        DeviceError: it has gone meanwhile.
    """
    device, remark = device_of(gpu)
    name = device.name if device else describe(gpu) if remark else gpu.name
    title = device.title if device else name
    support = device.runtimes if device else _support_by_capability(gpu.compute_capability)
    statuses = [
        runtime_status(
            runtime,
            support=support,
            title=title,
            library=libraries[runtime.name],
            driver_cuda=nvml.cuda_version,
        )
        for runtime in all_runtimes()
        if runtime.on_gpu
    ]
    if gpu.is_divided:
        statuses = [replace(status, usable=False, reason=DIVIDED.format(gpu.index)) for status in statuses]
    detected = DetectedDevice(
        name=name,
        title=title,
        fingerprint=device.fingerprint if device else short_hash(name),
        device=device,
        index=gpu.index,
        uuid=gpu.uuid,
        driver_version=nvml.driver_version,
        compute_capability=gpu.compute_capability,
        runtimes=tuple(statuses),
    )
    return detected, remark


def _support_by_capability(capability: tuple[int, int] | None) -> Mapping[str, RuntimeSupport]:
    """The limits of a catalogued GPU of the same compute capability."""
    for device in list_devices():
        if device.compute_capability == capability and device.runtimes:
            return device.runtimes
    return {}
