"""What ONNX Runtime's CPU provider makes of a network: the kernels that run, layout changes included.

On x86 its optimiser moves convolutions and their neighbours into a blocked layout (NCHWc: channels padded
to a multiple of the block size, 16 with AVX-512, 8 with AVX2), inserts reorders where a kernel cannot
follow, adds residuals inside the convolution, and turns a batch norm behind a pool into a depthwise 1×1
convolution. What a kernel costs depends on that, so a prediction has to follow it.

Law: the kernels that are derived here are those that ONNX Runtime's optimised graph runs, one for one, with
their shapes, weights and fused activations. tests/profile/test_deployed_*.py hold it for random
architectures, random networks from PyTorch and torchvision's classifiers, with the blocks of the processor
that they run on and without blocks; with blocks of 8 also where AVX-512 can be hidden; and, by recorded
graphs of a few architectures, for blocks of 16, of 8 and none on every processor. The law ends where a
network transposes between its kernels (ConvNeXt, transformers), because ONNX Runtime moves transposes through
the graph. Several reshapes in a row count as one, and as none if they end in the shape that they began with.

The rules are those of ONNX Runtime 1.30 to 1.32. Before 1.30 a hard swish behind a blocked convolution runs
apart from it, and before 1.25 a batch norm or a SiLU behind blocks leaves them.

Runtime kernels are `Kernel` objects, their `function` saying what became of them: `blocked`, `from_plain` (a
convolution that reads few channels as they are and writes blocks), `to_blocked`, `from_blocked`, `view`.
Blocked kernels carry their padded shapes, because that is the work done.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from dsonas_hw.kernel.deployment import Deployment
from dsonas_hw.kernel.network import Schedule, ScheduledKernel
from dsonas_hw.kernel.spec import Kernel, Shape

BLOCKED = "blocked"
FROM_PLAIN = "from_plain"
TO_BLOCKED = "to_blocked"
FROM_BLOCKED = "from_blocked"
VIEW = "view"

CHANNEL_ALIGNMENT = 4
"""Channels of a tensor that is reordered into blocks must be a multiple of it."""
FUSED_IN_CONV = frozenset({"relu", "relu6", "clip", "sigmoid", "tanh", "leakyrelu", "hardsigmoid"})
FUSED_IN_BLOCKED_CONV = FUSED_IN_CONV | {"hardswish"}
# fmt: off
FUSED_IN_GEMM = frozenset({
    "relu", "sigmoid", "tanh", "leakyrelu", "elu", "selu", "hardsigmoid", "softplus", "softsign",
    "thresholdedrelu",
})
# fmt: on
BLOCKED_CONV = (BLOCKED, FROM_PLAIN)
MERGEABLE = frozenset({"sum", "mul", "concat", "unary", "global_avgpool", "global_maxpool"})
BLOCKED_ACTIVATIONS = frozenset({"relu", "sigmoid", "tanh", "silu", "gelu"})


@dataclass(slots=True)
class _Buffer:
    """A tensor and the layouts it exists in."""

    shape: Shape
    blocked: bool = False
    """Its maker wrote it in blocks."""
    reordered: bool = False
    """The other layout has been made, too."""
    maker: int = -1
    """Index of the kernel that wrote it; -1: it was there before."""


class _Walk:
    """Walks a schedule and collects the kernels that run."""

    def __init__(self, schedule: Schedule, block_size: int, blocked_inputs: bool, is_part: bool) -> None:
        self.block = block_size
        schedule = merge_duplicates(schedule)
        self.pools: dict[tuple[Kernel, str], str] = {}
        """Pools that ran: (pool, buffer it reads) → buffer it wrote, before any batch norm."""
        self.buffers = {
            name: _Buffer(tuple(shape), blocked=blocked_inputs and bool(block_size) and len(shape) == 4)
            for name, shape in schedule.inputs.items()
        }
        self.num_readers = Counter(name for step in schedule.kernels for name in step.reads)
        self.num_readers.update(schedule.outputs)
        self.kernels: list[Kernel] = []
        for step in schedule.kernels:
            self._add(step)
        if not is_part:
            for name in sorted(schedule.outputs):
                if name in self.buffers:
                    self._plain(self._seen(name, schedule.output_shapes.get(name, self.buffers[name].shape)))

    # -- layouts -------------------------------------------------------------------------------------

    def _padded(self, shape: Shape) -> Shape:
        channels = -(-shape[1] // self.block) * self.block
        return (shape[0], channels, *shape[2:])

    def _blocked(self, name: str) -> Shape:
        """Make sure that a buffer exists in blocks; its padded shape."""
        buffer = self.buffers[name]
        padded = self._padded(buffer.shape)
        if not buffer.blocked and not buffer.reordered:
            self._emit(Kernel(op="copy", function=TO_BLOCKED, inputs=(buffer.shape,), output=padded))
            buffer.reordered = True
        return padded

    def _plain(self, name: str) -> Shape:
        """Make sure that a buffer exists as NCHW; its shape."""
        buffer = self.buffers[name]
        if buffer.blocked and not buffer.reordered:
            padded = self._padded(buffer.shape)
            self._emit(Kernel(op="copy", function=FROM_BLOCKED, inputs=(padded,), output=buffer.shape))
            buffer.reordered = True
        return buffer.shape

    def _all_blocked(self, names: tuple[str, ...]) -> bool:
        """Written in blocks by their makers, and of one shape."""
        found = [self.buffers[name] for name in names]
        return bool(self.block) and all(b.blocked and b.shape == found[0].shape for b in found)

    def _emit(self, kernel: Kernel) -> int:
        self.kernels.append(kernel)
        return len(self.kernels) - 1

    def _write(self, name: str, shape: Shape, *, blocked: bool, maker: int) -> None:
        self.buffers[name] = _Buffer(shape, blocked=blocked, maker=maker)

    # -- kernels -------------------------------------------------------------------------------------

    def _add(self, step: ScheduledKernel) -> None:
        kernel = step.kernel
        for name, shape in zip(step.reads, step.read_shapes, strict=False):
            if name not in self.buffers:  # a constant, or the output of something unknown
                self.buffers[name] = _Buffer(shape)
        reads = map(self._seen, step.reads, step.read_shapes)
        step = replace(step, reads=tuple(reads))
        match kernel.op:
            case "conv" if not kernel.function:
                self._conv(step)
            case "maxpool" | "avgpool":
                self._pool(step)
            case "global_avgpool" | "global_maxpool" if step.written_as:
                self._reduce(step)
            case "global_avgpool" | "global_maxpool":
                blocked = self._all_blocked(step.reads) and kernel.inputs[0][1] % self.block == 0
                self._unchanged(_as_in_file(step), blocked=blocked, function=BLOCKED)
            case "batchnorm":
                self._batchnorm(step.reads[0], step)
                self._activate(kernel.epilogue, step.writes)
            case "sum" | "mul":
                self._binary(step)
            case "concat":
                self._concat(step)
            case "unary" if kernel.function in BLOCKED_ACTIVATIONS:
                self._unchanged(step, blocked=self._all_blocked(step.reads))
            case "gemm":
                self._gemm(step)
            case "conv_transpose":
                self._unchanged(_as_in_file(step))
            case _:
                self._unchanged(step)

    def _conv(self, step: ScheduledKernel) -> None:
        kernel, source = step.kernel, step.reads[0]
        channels, groups = kernel.inputs[0][1], kernel.groups
        output = step.written_shape
        fused = kernel.epilogue[:1]
        rest = kernel.epilogue[1:]
        layout = self._conv_layout(kernel) if len(output) == 4 else ""
        if fused and fused[0] not in (FUSED_IN_BLOCKED_CONV if layout else FUSED_IN_CONV):
            fused, rest = (), kernel.epilogue
        if not layout:
            inputs = (self._plain(source),)
            maker = self._emit(replace(kernel, inputs=inputs, output=output, epilogue=fused))
        else:
            inputs = (self._plain(source) if layout == FROM_PLAIN else self._blocked(source),)
            padded = self._padded(output)
            depthwise = groups > 1 and groups == channels
            per_filter = prod(kernel.kernel_size) * (1 if depthwise else inputs[0][1] // groups)
            maker = self._emit(
                replace(
                    kernel,
                    inputs=inputs,
                    output=padded,
                    function=layout,
                    groups=padded[1] if depthwise else groups,
                    num_weights=padded[1] * per_filter,
                    num_bias=padded[1] if kernel.num_bias else 0,
                    epilogue=fused,
                )
            )
        self._write(step.writes, output, blocked=bool(layout), maker=maker)
        self._activate(rest, step.writes)

    def _conv_layout(self, kernel: Kernel) -> str:
        """`blocked`, `from_plain` (few channels are read as they are, written in blocks), or empty: NCHW."""
        channels, outputs, groups = kernel.inputs[0][1], kernel.output[1], kernel.groups
        if not self.block:
            return ""
        if groups == 1:
            if channels < self.block:
                return FROM_PLAIN
            return BLOCKED if channels % CHANNEL_ALIGNMENT == 0 else ""
        if channels == groups == outputs:
            return BLOCKED if channels % CHANNEL_ALIGNMENT == 0 else ""
        per_group = (channels // groups, outputs // groups)
        return BLOCKED if all(size % self.block == 0 for size in per_group) else ""

    def _pool(self, step: ScheduledKernel) -> None:
        kernel, source = step.kernel, step.reads[0]
        blocked = bool(self.block) and len(step.written_shape) == 4 and kernel.inputs[0][1] % self.block == 0
        blocked = blocked and not step.written_as
        kernel = _as_in_file(step).kernel
        bare = replace(kernel, epilogue=(), num_bias=0, function=BLOCKED if blocked else "")
        pooled = self.pools.get((bare, source))
        if pooled is None:
            shape = self._blocked(source) if blocked else self._plain(source)
            pooled = self.pools[bare, source] = f"{step.writes}/pooled"
            maker = self._emit(replace(bare, inputs=(shape,)))
            self._write(pooled, kernel.output, blocked=blocked, maker=maker)
        rest, current = kernel.epilogue, pooled
        while rest[:1] == ("bn",):
            self._batchnorm(current, step)
            rest, current = rest[1:], step.writes
        self.buffers[step.writes] = self.buffers[current]
        self._activate(rest, step.writes)

    def _batchnorm(self, source: str, step: ScheduledKernel) -> None:
        """Where its input is blocked it becomes a depthwise 1×1 convolution."""
        buffer = self.buffers[source]
        output = step.kernel.output
        if buffer.blocked and len(output) == 4:
            padded = self._padded(buffer.shape)
            kernel = Kernel(
                op="conv",
                function=BLOCKED,
                inputs=(padded,),
                output=padded,
                groups=padded[1],
                num_weights=padded[1],
                num_bias=padded[1],
            )
        else:
            shape = self._plain(source)
            kernel = Kernel(op="batchnorm", inputs=(shape,), output=shape)
        blocked = buffer.blocked and len(output) == 4
        self._write(step.writes, output, blocked=blocked, maker=self._emit(kernel))

    def _activate(self, functions: tuple[str, ...], name: str) -> None:
        """Activations behind a kernel that was emitted already: fused into it, or kernels of their own."""
        for function in functions:
            buffer = self.buffers[name]
            maker = self.kernels[buffer.maker]
            fusable = FUSED_IN_BLOCKED_CONV if maker.function in BLOCKED_CONV else FUSED_IN_CONV
            is_plain = maker.op == "conv" and maker.function in ("", *BLOCKED_CONV)
            if is_plain and not _activation(maker) and function in fusable:
                self.kernels[buffer.maker] = replace(maker, epilogue=(*maker.epilogue, function))
                continue
            stays = buffer.blocked and function in BLOCKED_ACTIVATIONS
            shape = self._padded(buffer.shape) if stays else self._plain(name)
            for part in _expand(function, shape):
                index = self._emit(part)
            self._write(name, buffer.shape, blocked=stays, maker=index)

    def _binary(self, step: ScheduledKernel) -> None:
        kernel = step.kernel
        blocked = self._all_blocked(step.reads) and len(step.reads) > 1 and not kernel.num_weights
        if not (kernel.op == "sum" and self._add_in_conv(step, blocked)):
            inputs = tuple(
                self._padded(self.buffers[name].shape) if blocked else self._plain(name)
                for name in step.reads
            )
            output = self._padded(kernel.output) if blocked else kernel.output
            maker = self._emit(replace(kernel, inputs=inputs or kernel.inputs, output=output, epilogue=()))
            self._write(step.writes, kernel.output, blocked=blocked, maker=maker)
        self._activate(kernel.epilogue, step.writes)

    def _add_in_conv(self, step: ScheduledKernel, blocked: bool) -> bool:
        """A residual of two tensors is added by a convolution that makes one of them, for nobody else.

        In blocks any such convolution will do; a plain one needs a bias, and `Add`, not `Sum`, in the file.
        """
        first, *others = step.reads
        if len(others) != 1 or not (blocked or step.written_as == "Add"):
            return False
        shape = self.buffers[first].shape
        if not blocked and (shape != self.buffers[others[0]].shape or len(shape) != 4):
            return False
        for name in step.reads if blocked else sorted(step.reads, key=lambda name: self.buffers[name].maker):
            buffer = self.buffers[name]
            maker = self.kernels[buffer.maker] if buffer.maker >= 0 else None
            if maker is None or maker.op != "conv" or maker.epilogue or self.num_readers[name] != 1:
                continue
            if (maker.function in BLOCKED_CONV) if blocked else (not maker.function and maker.num_bias):
                for other in step.reads:
                    if other != name and not blocked:
                        self._plain(other)
                self.kernels[buffer.maker] = replace(
                    maker, inputs=(maker.inputs[0], maker.output), epilogue=("add",)
                )
                self._write(step.writes, step.kernel.output, blocked=blocked, maker=buffer.maker)
                return True
        return False

    def _concat(self, step: ScheduledKernel) -> None:
        kernel = step.kernel
        found = [self.buffers[name] for name in step.reads]
        channels = [buffer.shape[1] if len(buffer.shape) == 4 else 0 for buffer in found]
        blocked = (
            bool(self.block)
            and len(kernel.output) == 4
            and sum(channels) == kernel.output[1]
            and all(buffer.blocked and buffer.shape[1] % self.block == 0 for buffer in found)
        )
        if not blocked:
            for name in step.reads:
                self._plain(name)
        self._write(step.writes, kernel.output, blocked=blocked, maker=self._emit(kernel))

    def _reduce(self, step: ScheduledKernel) -> None:
        """A global pool that is written as a reduction: never blocked; it may drop the rows and columns."""
        shape = self._plain(step.reads[0])
        output = step.written_shape
        function = step.written_as.removeprefix("Reduce").lower()
        maker = self._emit(Kernel(op="reduce", function=function, inputs=(shape,), output=output))
        self._write(step.writes, output, blocked=False, maker=maker)

    def _gemm(self, step: ScheduledKernel) -> None:
        """A product of matrices; one with a bias is made two-dimensional and its result seen as before."""
        kernel, name = step.kernel, step.writes
        flat = bool(kernel.num_bias) and len(kernel.output) > 2 and not kernel.function
        self._plain(step.reads[0])
        if flat:
            source, output = (_as_matrix(shape) for shape in (kernel.inputs[0], kernel.output))
            self._seen(step.reads[0], source)
            kernel, name = replace(kernel, inputs=(source,), output=output), f"{name}/matrix"
        fusable = not flat and not kernel.function and FUSED_IN_GEMM.issuperset(kernel.epilogue[:1])
        fused = kernel.epilogue[:1] if fusable else ()
        maker = self._emit(replace(kernel, epilogue=fused))
        self._write(name, step.written_shape if not flat else kernel.output, blocked=False, maker=maker)
        if flat:
            self.buffers[step.writes] = self.buffers[self._seen(name, step.kernel.output)]
        self._activate(kernel.epilogue[len(fused) :], step.writes)

    def _seen(self, name: str, shape: Shape) -> str:
        """The buffer as a tensor of this shape: itself, or a reshape of it, which is a kernel that runs."""
        buffer = self.buffers[name]
        if buffer.shape == shape or prod(buffer.shape) != prod(shape):
            return name
        view = f"{name}/{shape}"
        if view not in self.buffers:
            kernel = Kernel(op="copy", function=VIEW, inputs=(self._plain(name),), output=shape)
            self._write(view, shape, blocked=False, maker=self._emit(kernel))
        return view

    def _unchanged(self, step: ScheduledKernel, *, blocked: bool = False, function: str = "") -> None:
        """A kernel that runs as it is, in blocks where its input is (and `blocked` allows it)."""
        kernel = step.kernel
        if blocked:
            inputs = tuple(self._padded(self.buffers[name].shape) for name in step.reads)
            kernel = replace(kernel, inputs=inputs, output=self._padded(kernel.output))
        else:
            for name in step.reads:
                self._plain(name)
        if function and (blocked or function != BLOCKED):
            kernel = replace(kernel, function=function)
        epilogue = kernel.epilogue
        index = self._emit(replace(kernel, epilogue=()))
        self._write(step.writes, step.written_shape, blocked=blocked, maker=index)
        self._activate(epilogue, step.writes)


def _as_in_file(step: ScheduledKernel) -> ScheduledKernel:
    """The step with the shapes of its tensors: a sequence (N, C, L) is not made an image of height 1."""
    inputs = (*step.read_shapes[:1], *step.kernel.inputs[1:])
    return replace(step, kernel=replace(step.kernel, inputs=inputs, output=step.written_shape))


def merge_duplicates(schedule: Schedule) -> Schedule:
    """Common subexpressions run once: weightless kernels that read the same buffers in the same order."""
    same: dict[str, str] = {}
    seen: dict[tuple[Kernel, str, tuple[str, ...]], str] = {}
    steps = []
    for step in schedule.kernels:
        reads = tuple(same.get(name, name) for name in step.reads)
        merged = replace(step, reads=reads) if reads != step.reads else step
        if _is_determined(step.kernel) and step.writes not in schedule.outputs:
            first = seen.setdefault((step.kernel, step.written_as, reads), step.writes)
            if first != step.writes:
                same[step.writes] = first
                continue
        steps.append(merged)
    return replace(schedule, kernels=tuple(steps))


def _with_cost_of_relu(kernel: Kernel) -> Kernel:
    """`clip` and `relu6` cost what `relu` costs: one comparison more or less."""
    epilogue = tuple("relu" if name in ("clip", "relu6") else name for name in kernel.epilogue)
    function = "relu" if kernel.op == "unary" and kernel.function in ("clip", "relu6") else kernel.function
    if epilogue == kernel.epilogue and function == kernel.function:
        return kernel
    return replace(kernel, epilogue=epilogue, function=function)


def _is_determined(kernel: Kernel) -> bool:
    """Whether equal kernels on equal inputs compute the same: no weights, nothing left out (which slice?)."""
    return kernel.num_weights == 0 and kernel.num_bias == 0 and kernel.op in MERGEABLE


def _as_matrix(shape: Shape) -> Shape:
    """(…, features) → (rows, features)."""
    return (prod(shape[:-1]), shape[-1])


def _activation(kernel: Kernel) -> bool:
    return any(name != "add" for name in kernel.epilogue)


def _expand(function: str, shape: Shape) -> tuple[Kernel, ...]:
    """The kernels of an activation that nothing absorbed."""
    if function == "hardswish":
        return (
            Kernel(op="unary", function="hardsigmoid", inputs=(shape,), output=shape),
            Kernel(op="mul", inputs=(shape, shape), output=shape),
        )
    return (Kernel(op="unary", function=function, inputs=(shape,), output=shape),)


@dataclass(frozen=True, kw_only=True)
class Blocks(Deployment):
    """ONNX Runtime's CPU provider on a processor with blocks of this size (16: AVX-512, 8: AVX2, 0: none)."""

    def kernels(
        self, schedule: Schedule, *, blocked_inputs: bool = False, is_part: bool = False
    ) -> tuple[Kernel, ...]:
        walk = _Walk(schedule, self.block_size, blocked_inputs, is_part)
        return tuple(_with_cost_of_relu(kernel) for kernel in walk.kernels)

    @property
    def alignment(self) -> int:
        return CHANNEL_ALIGNMENT

    def reorder(self, shape: Shape, *, into_blocks: bool) -> Kernel:
        blocked = (shape[0], self.padded(shape[1]), *shape[2:])
        if into_blocks:
            return Kernel(op="copy", function=TO_BLOCKED, inputs=(shape,), output=blocked)
        return Kernel(op="copy", function=FROM_BLOCKED, inputs=(blocked,), output=shape)
