"""Liveness and fusion on schedules that are written down by hand."""

from __future__ import annotations

from dsonas_hw.kernel.fuse import fuse_kernels
from dsonas_hw.kernel.network import Schedule, ScheduledKernel, peak_activation_elements
from dsonas_hw.kernel.spec import Kernel, Shape


def step(
    op: str, reads: str, writes: str, *inputs: Shape, output: Shape, **fields: object
) -> ScheduledKernel:
    axes = fields.pop("channel_axes", frozenset())
    kernel = Kernel(op=op, inputs=inputs, output=output, **fields)  # type: ignore[arg-type]
    return ScheduledKernel(
        kernel=kernel,
        reads=tuple(reads.split()),
        writes=writes,
        channel_axes=axes,  # type: ignore[arg-type]
    )


def conv(reads: str, writes: str, source: Shape, output: Shape, **fields: object) -> ScheduledKernel:
    return step("conv", reads, writes, source, output=output, **fields)


def schedule(*steps: ScheduledKernel, x: Shape, outputs: str) -> Schedule:
    return Schedule(kernels=steps, inputs={"x": x}, outputs=frozenset(outputs.split()))


class TestPeak:
    def test_chain_holds_two_neighbours(self) -> None:
        # x 10 → a 30 → b 20: 10 + 30 = 40, then 30 + 20 = 50
        chain = schedule(
            conv("x", "a", (1, 10, 1, 1), (1, 30, 1, 1)),
            conv("a", "b", (1, 30, 1, 1), (1, 20, 1, 1)),
            x=(1, 10, 1, 1),
            outputs="b",
        )
        assert peak_activation_elements(chain) == 50

    def test_shortcut_stays_alive_until_it_is_added(self) -> None:
        # x 10 is read again at the end: 10 + a 30 + b 10 = 50; the sum needs x 10 + b 10 + y 10
        residual = schedule(
            conv("x", "a", (1, 10, 1, 1), (1, 30, 1, 1)),
            conv("a", "b", (1, 30, 1, 1), (1, 10, 1, 1)),
            step("sum", "x b", "y", (1, 10, 1, 1), (1, 10, 1, 1), output=(1, 10, 1, 1)),
            x=(1, 10, 1, 1),
            outputs="y",
        )
        assert peak_activation_elements(residual) == 50

    def test_an_early_output_is_kept_to_the_end(self) -> None:
        # a 5 is an output: a 5 + b 7 + c 100
        branches = schedule(
            conv("x", "a", (1, 1, 1, 1), (1, 5, 1, 1)),
            conv("x", "b", (1, 1, 1, 1), (1, 7, 1, 1)),
            conv("b", "c", (1, 7, 1, 1), (1, 100, 1, 1)),
            x=(1, 1, 1, 1),
            outputs="a c",
        )
        assert peak_activation_elements(branches) == 112

    def test_a_result_nobody_reads_is_freed(self) -> None:
        # a 100 lives for its kernel only: x 1 + a 100, then x 1 + b 3
        dead = schedule(
            conv("x", "a", (1, 1, 1, 1), (1, 100, 1, 1)),
            conv("x", "b", (1, 1, 1, 1), (1, 3, 1, 1)),
            x=(1, 1, 1, 1),
            outputs="b",
        )
        assert peak_activation_elements(dead) == 101

    def test_no_kernel_holds_the_input(self) -> None:
        assert peak_activation_elements(schedule(x=(2, 3), outputs="x")) == 6


IMAGE = (1, 8, 4, 4)
CHANNELS = frozenset([1])


def batchnorm(reads: str, writes: str) -> ScheduledKernel:
    return step("batchnorm", reads, writes, IMAGE, output=IMAGE, num_bias=16, channel_axes=CHANNELS)


def relu(reads: str, writes: str) -> ScheduledKernel:
    return step("unary", reads, writes, IMAGE, output=IMAGE, function="relu")


class TestFuse:
    def test_conv_bn_relu_is_one_kernel_with_a_bias(self) -> None:
        fused = fuse_kernels(
            schedule(
                conv("x", "a", IMAGE, IMAGE, num_weights=64),
                batchnorm("a", "b"),
                relu("b", "c"),
                x=IMAGE,
                outputs="c",
            )
        )
        (only,) = fused.kernels
        assert only.writes == "c"
        assert only.kernel.epilogue == ("relu",)
        assert (only.kernel.num_weights, only.kernel.num_bias) == (64, 8)

    def test_a_second_reader_prevents_fusion(self) -> None:
        steps = (conv("x", "a", IMAGE, IMAGE, num_weights=64), batchnorm("a", "b"))
        both = schedule(*steps, step("sum", "a b", "y", IMAGE, IMAGE, output=IMAGE), x=IMAGE, outputs="y")
        assert fuse_kernels(both) == both

    def test_an_output_is_not_fused_away(self) -> None:
        seen = schedule(conv("x", "a", IMAGE, IMAGE), relu("a", "b"), x=IMAGE, outputs="a b")
        assert fuse_kernels(seen) == seen

    def test_nothing_is_folded_through_an_activation(self) -> None:
        pre_activation = schedule(
            conv("x", "a", IMAGE, IMAGE, num_weights=64),
            relu("a", "b"),
            batchnorm("b", "c"),
            relu("c", "d"),
            x=IMAGE,
            outputs="d",
        )
        kernels = [s.kernel for s in fuse_kernels(pre_activation).kernels]
        assert [(k.op, k.epilogue) for k in kernels] == [("conv", ("relu",)), ("batchnorm", ("relu",))]

    def test_pool_carries_the_bn(self) -> None:
        pool = step("avgpool", "x", "a", IMAGE, output=IMAGE, kernel_size=(3, 3))
        fused = fuse_kernels(schedule(pool, batchnorm("a", "b"), relu("b", "c"), x=IMAGE, outputs="c"))
        (only,) = fused.kernels
        assert only.kernel.epilogue == ("bn", "relu")
        assert only.kernel.num_bias == 16
        assert only.kernel.mac == 2 * 8 * 4 * 4

    def test_dynamic_weights_cannot_absorb_a_bn(self) -> None:
        dynamic = schedule(
            step("conv", "x x", "a", IMAGE, (8, 8, 1, 1), output=IMAGE),
            batchnorm("a", "b"),
            x=IMAGE,
            outputs="b",
        )
        assert fuse_kernels(dynamic) == dynamic

    def test_fusing_twice_changes_nothing(self) -> None:
        once = fuse_kernels(
            schedule(conv("x", "a", IMAGE, IMAGE, num_weights=64), batchnorm("a", "b"), x=IMAGE, outputs="b")
        )
        assert fuse_kernels(once) == once
