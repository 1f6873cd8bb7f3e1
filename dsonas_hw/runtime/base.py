"""What every runtime is: four faces behind one interface.

1. *availability*: the library it needs, and whether it can serve a device (`library`, `why_not`)
2. *session*: load a model for a target, run, wait, close (`open_session`, `measure`)
3. *kernel timings in situ*: run a network, and say what each deployed kernel took (`open_profiled`)
4. *deployment*: which kernels a network becomes there (`deployment`)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.spec import Kernel
from dsonas_hw.runtime.libraries import Library, find_library
from dsonas_hw.target import Target

if TYPE_CHECKING:
    from typing import Self

    from dsonas_hw.measure.energy import EnergyMeter
    from dsonas_hw.measure.measurement import LatencyMeasurement, Turn
    from dsonas_hw.measure.rounds import Plan


class Session(ABC):
    """A network, loaded and ready to run on inputs it made itself; a context manager that closes it."""

    runtime: str
    versions: dict[str, str]
    """Library → version, of everything the timing depends on."""

    @abstractmethod
    def run(self) -> object:
        """Start one inference; it may still be running on the device when this returns."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has finished."""

    @abstractmethod
    def close(self) -> None:
        """Give the device's memory back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeTiming:
    """One kernel that ran: what it is, and how long it took."""

    kernel: Kernel
    latency_ms: float


@dataclass(frozen=True, kw_only=True)
class NetworkTiming:
    """All kernels of one network in the order they ran."""

    nodes: tuple[NodeTiming, ...]
    remarks: tuple[str, ...] = ()
    """What could not be told apart."""


class ProfiledSession(Protocol):
    """A network whose kernels are timed while it runs; run it as often as you like, in turns with others."""

    def run(self) -> object:
        """Do one inference."""
        ...

    def finish(self, turns: Sequence[Turn], speeds: Sequence[float] = ()) -> NetworkTiming:
        """Close the session and tell how long each kernel took.

        turns: the runs there were, as `measure_together` counted them.
        speeds: what to multiply the timings of each turn by; none: they stay as they are.

        Raises:
            ProfileError: what the runtime recorded is not understood.
        """
        ...


Progress = Callable[[int, int], None]
"""Called after every turn with the turns done and those there are."""


class Runtime(ABC):
    """One way to run networks. What is an attribute here is a fact about it that others decide by."""

    name: str
    """What a user types."""
    title: str
    """In a sentence."""
    precisions: tuple[str, ...] = ("fp32",)
    """fp32 is what the runtime makes of an fp32 model: from Ampere on convolutions use TF32, and matrix
    products but for those of `eager`. So the model will run, and so the estimate of a GPU is."""
    on_cpu: bool = False
    """It serves this machine's CPU (device `local`)."""
    on_gpu: bool = True
    fuses: bool = True
    """It runs kernels with batch norms and activations inside; False: each operation of a file on its own."""
    profiler_overhead_ms: float = 0.0
    """The most that its profiler adds to the time of a kernel."""
    runs_in_caller: bool = False
    """With one thread the calling one does all the work, and its CPU clock tells when it was disturbed."""
    returns_early: bool = False
    """A session's `run` comes back while the GPU is still at work, so that the CPU's part can be timed."""
    invents_int8: bool = False
    """It may choose int8 for a model that is not quantised, for timing."""
    meter: EnergyMeter | None = None
    """What tells the energy of this machine's CPU; None: nothing does. That of a GPU is its driver's."""
    makes_engines: bool = False
    """`build_engine` and `open_engine` work."""

    # -- what the estimate of an absent GPU goes by -------------------------------------------------------

    estimated_as: str | None = None
    """The runtime whose fitted constants hold for it; None: there is no estimate."""
    views_are_free: bool = False
    """Slices and the like are not copied: it looks into the tensor at another stride."""
    adds_while_making: bool = False
    """A sum is added in the kernel that makes one of the summands."""
    uses_tf32_in_products: bool = True
    """From Ampere on, and not in convolutions only."""
    reorders_for_tensor_cores: bool = False
    """Tensors are copied to the layout that tensor cores read, convolution by convolution."""

    # -- availability ------------------------------------------------------------------------------------

    distributions: tuple[str, ...]
    """That bring its library; the first that is installed counts."""
    module: str
    """Of the library, which is looked for and not imported."""
    cuda_file: str | None = None
    """File in the module's folder that says which CUDA it was built for."""

    def library(self) -> Library | None:
        """The installed library; None: there is none."""
        return find_library(self.distributions, self.module, self.cuda_file)

    def why_not(self, library: Library) -> str:
        """What is wrong with the installed library wherever it runs; empty: nothing."""
        return ""

    def why_not_on_gpu(self, library: Library, install: str) -> str:
        """What is wrong with it for GPUs; empty: nothing. install: what the device's datasheet advises."""
        return ""

    def missing_libraries(self, library: Library) -> list[str]:
        """Shared libraries that it needs on a GPU and that are not on this machine."""
        return []

    def why_not_here(self) -> str:
        """Why it cannot serve the GPU that is here, by the library itself; empty: unknown, or it can."""
        return ""

    # -- session -----------------------------------------------------------------------------------------

    @abstractmethod
    def open_session(self, model: bytes, target: Target) -> Session:
        """Load an ONNX model; see `registry.open_session`, which checks names and reads files."""

    def measure(
        self,
        session: Session,
        *,
        plan: Plan | None = None,
        with_cuda_graph: bool = False,
        look: Callable[[], None] = lambda: None,
        progress: Progress = lambda done, total: None,
    ) -> LatencyMeasurement:
        """Latency of one inference on a GPU, which stays at work between the turns.

        plan: `rounds.GPU` if none is given.
        with_cuda_graph: also time it with all launches replayed as one, where it can be (`graph_ms`).
        look: called between turns, while the GPU works.
        """
        from dsonas_hw.measure.loaded import measure_loaded
        from dsonas_hw.measure.rounds import GPU

        return measure_loaded(
            session,
            plan=plan or GPU,
            returns_early=self.returns_early,
            graph=getattr(session, "as_graph", None) if with_cuda_graph else None,
            look=look,
            progress=progress,
        )

    def open_engine(self, engine_path: Path, model: bytes, target: Target) -> Session:
        """Load what `build_engine` wrote for this model.

        Raises:
            DeviceError: it is of another model, precision, batch size, GPU or version.
        """
        raise NotImplementedError(self.name)

    def build_engine(
        self, model_path: Path, engine_path: Path, target: Target, *, timing_cache_path: Path | None = None
    ) -> object:
        """Build what a deployment loads, and write it; what its description says.

        Raises:
            DeviceError: there is no device to build it for.
            ModelFileError: not a model that the runtime takes.
        """
        raise NotImplementedError(self.name)

    # -- kernel timings in situ ----------------------------------------------------------------------------

    def why_untimed(self, target: Target) -> str:
        """Why kernels cannot be timed one by one there; empty: `open_profiled` works."""
        return f"{self.title} does not tell what a kernel takes"

    def open_profiled(self, model: bytes, target: Target, plain: Session) -> ProfiledSession:
        """Load a model whose kernels are timed while it runs.

        plain: the same network without a profiler, for a runtime that can watch one that is loaded.

        Raises:
            ModelFileError: the runtime does not take the model.
        """
        raise NotImplementedError(self.name)

    def device_errors(self) -> tuple[type[Exception], ...]:
        """What its library raises when the device fails or is taken away."""
        return (RuntimeError,)

    def versions(self) -> dict[str, str]:
        """Library → version, of what a table made here depends on."""
        library = self.library()
        return {self.module: library.version} if library is not None else {}

    # -- deployment --------------------------------------------------------------------------------------

    def settings_here(self) -> dict[str, int]:
        """What the deployment depends on, on this machine; stored with a table."""
        return {}

    def deployment(self, settings: Mapping[str, object]) -> Deployment:
        """Which kernels networks become; settings: of a table, as `settings_here` gave them."""
        return Deployment(fuses=self.fuses)

    def deployment_here(self) -> Deployment:
        """The same on this machine."""
        return self.deployment(self.settings_here())
