"""The networks that a profile is fitted on and checked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dsonas_hw.profile.probes import deployment_widths, probe_networks, probe_widths, space_id
from dsonas_hw.space.space import SearchSpace

SPACE = SearchSpace(levels=2, stages=(3, 3), channels=16, input_shape=(3, 16, 16), num_classes=10)


def names(space: SearchSpace, *, widths: Sequence[int] | None = None, held_out: bool = False) -> list[str]:
    return [p.name for p in probe_networks(space, num_networks=12, widths=widths, held_out=held_out)]


def first_channels(space: SearchSpace, *, held_out: bool = False) -> set[int]:
    """Channels that the first convolution writes."""
    drawn = probe_networks(space, num_networks=24, held_out=held_out)
    return {p.schedule.kernels[0].kernel.output[1] for p in drawn}


def test_the_same_networks_are_drawn_each_time_and_none_of_the_held_out_is_among_them() -> None:
    assert names(SPACE) == names(SPACE)
    assert len(set(names(SPACE))) == 12
    assert not set(names(SPACE)) & set(names(SPACE, held_out=True))


def test_networks_of_other_widths_have_other_names_so_that_a_finished_profile_can_be_extended() -> None:
    assert not set(names(SPACE, widths=[8, 16])) & set(names(SPACE, widths=[24, 32]))


def test_a_space_of_finer_widths_is_another_one_to_profile() -> None:
    assert space_id(SPACE) != space_id(replace(SPACE, width_step=2))
    assert space_id(SPACE) == space_id(replace(SPACE, share=not SPACE.share, num_classes=100))


def test_those_to_fit_cover_the_grid_and_those_to_check_are_of_likely_widths() -> None:
    likely = set(deployment_widths(SPACE))
    assert likely == {4, 8, 12, 16, 20, 24}
    assert first_channels(SPACE) >= {width for width in probe_widths(SPACE) if width in likely}
    assert first_channels(SPACE, held_out=True) <= likely
    assert probe_widths(SPACE)[-1] == SPACE.widths()[-1]


def test_two_in_three_have_the_depth_that_is_deployed() -> None:
    def stages(index: int) -> int:
        (probe,) = list(probe_networks(SPACE, num_networks=index + 1))[index:]
        return len(probe.schedule.kernels)

    shallow = sum(stages(i) for i in (0, 3, 6, 9)) / 4
    deployed = sum(stages(i) for i in (1, 2, 4, 5, 7, 8, 10, 11)) / 8
    assert deployed > shallow
