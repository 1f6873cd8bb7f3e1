"""Augmentation: against a plain per-image version, and what may never happen to a pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dsonas_hw.train.augment import Augmentation, Draw, crop_and_flip, cut_out, draw

FULL = Augmentation(flip=True, pad=4, cutout=6)


def random_images(n: int = 64, c: int = 3, h: int = 12, w: int = 10) -> Tensor:
    return torch.randint(1, 256, (n, c, h, w), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def draw_for(images: Tensor, augmentation: Augmentation, seed: int = 0) -> Draw:
    n, _, h, w = images.shape
    return draw(augmentation, n, h, w, torch.Generator().manual_seed(seed))


def plain_crop_and_flip(image: Tensor, pad: int, top: int, left: int, flip: bool) -> Tensor:
    height, width = image.shape[1:]
    out = F.pad(image, [pad] * 4)[:, top : top + height, left : left + width]
    return out.flip(2) if flip else out


def test_crop_and_flip_equals_one_image_at_a_time():
    images = random_images()
    drawn = draw_for(images, FULL)
    batched = crop_and_flip(images, FULL, drawn)
    for i, image in enumerate(images):
        plain = plain_crop_and_flip(image, 4, int(drawn.top[i]), int(drawn.left[i]), bool(drawn.flip[i]))
        assert torch.equal(batched[i], plain)


def test_what_is_padded_has_the_fill_of_its_channel():
    images = torch.zeros(200, 3, 12, 10, dtype=torch.uint8)
    augmentation = Augmentation(pad=4, fill=(127, 5, 250))
    augmented = crop_and_flip(images, augmentation, draw_for(images, augmentation))
    for channel, level in enumerate(augmentation.fill):
        assert set(augmented[:, channel].unique().tolist()) == {0, level}
    shown = augmented[:, 0] == 127
    assert torch.equal(shown, augmented[:, 2] == 250)  # the same pixels in every channel


def test_every_offset_and_both_directions_occur():
    drawn = draw_for(random_images(2000), FULL)
    assert drawn.top.unique().tolist() == drawn.left.unique().tolist() == list(range(9))
    assert 0.45 < drawn.flip.float().mean() < 0.55


def test_pixels_come_from_the_image_or_are_zero():
    images = random_images()
    augmented = crop_and_flip(images, FULL, draw_for(images, FULL))
    for before, after in zip(images, augmented, strict=True):
        for channel in range(3):
            allowed = set(before[channel].flatten().tolist()) | {0}
            assert set(after[channel].flatten().tolist()) <= allowed


def test_nothing_asked_nothing_done():
    images = random_images()
    drawn = draw_for(images, Augmentation())
    assert torch.equal(crop_and_flip(images, Augmentation(), drawn), images)
    assert torch.equal(cut_out(images.float(), Augmentation(), drawn), images.float())


def test_no_flip_unless_asked():
    images = random_images()
    assert not draw_for(images, Augmentation(pad=4)).flip.any()


@pytest.mark.parametrize("side", [1, 4, 5, 16])
def test_cutout_blanks_the_square_clipped_at_the_border(side: int):
    images = torch.ones(200, 3, 12, 10)
    augmentation = Augmentation(cutout=side)
    drawn = draw_for(images, augmentation)
    blanked = cut_out(images, augmentation, drawn) == 0
    for i in range(len(images)):
        top, left = int(drawn.cut_y[i]) - side // 2, int(drawn.cut_x[i]) - side // 2
        height = min(top + side, 12) - max(top, 0)
        width = min(left + side, 10) - max(left, 0)
        assert blanked[i].sum(dim=(1, 2)).tolist() == [height * width] * 3
    assert side > 5 or blanked.sum(dim=(1, 2, 3)).max() == 3 * side**2  # somewhere it lies wholly inside


def test_cutout_keeps_the_other_pixels():
    images = torch.rand(20, 3, 12, 10) + 1
    after = cut_out(images, FULL, draw_for(images, FULL))
    assert torch.equal(after[after != 0], images[after != 0])


def test_same_generator_same_result_and_other_seed_another():
    images = random_images()
    results = [crop_and_flip(images, FULL, draw_for(images, FULL, seed)) for seed in (3, 3, 4)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_augmenting_a_share_equals_the_share_of_the_augmented():
    images = random_images()
    drawn = draw_for(images, FULL)
    mine = slice(1, None, 3)
    whole = cut_out(crop_and_flip(images, FULL, drawn).float(), FULL, drawn)
    part = cut_out(
        crop_and_flip(images[mine], FULL, drawn.rows(mine, images.device)).float(),
        FULL,
        drawn.rows(mine, images.device),
    )
    assert torch.equal(part, whole[mine])


@pytest.mark.parametrize("field", [{"pad": -1}, {"cutout": -2}, {"colour": 1.0}])
def test_senseless_settings_are_refused(field: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(field))):
        Augmentation(**field)
