import numpy as np
import pytest
import torch
from ignite.engine import Engine
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from ct_cncl.pipeline.common.panel import GAP, TITLE_HEIGHT
from ct_cncl.pipeline.handlers import PicturePanel

WIDTH, HEIGHT = 160, 24
OFFSETS = {"image": -100, "content": -60, "denoised": -20, "pred": 70, "label": 50}
"""HU of each flat image in slice 0; slice k has k HU more."""


def output(number):
    """What CNCLEvaluator puts out for slice ``number``; a second slice in the batch is not to be seen."""
    return {
        name: torch.stack([torch.full((1, WIDTH, HEIGHT), float(hu + number)), torch.full((1, WIDTH, HEIGHT), 999.0)])
        for name, hu in OFFSETS.items()
    }


def validate(handler, *, slices, epochs=1):
    engine = Engine(lambda _engine, number: output(number))
    handler.attach(engine)
    engine.run(list(range(slices)), max_epochs=epochs)


def tiles(path):
    """Mean grey level of each of the six tiles, by row and column."""
    grey = np.asarray(Image.open(path)).astype(float)
    assert grey.shape == (2 * (HEIGHT + TITLE_HEIGHT + GAP), 3 * (WIDTH + GAP))
    corners = [
        [(row * (HEIGHT + TITLE_HEIGHT + GAP) + TITLE_HEIGHT, column * (WIDTH + GAP) + GAP // 2) for column in range(3)]
        for row in range(2)
    ]
    return [[grey[top : top + HEIGHT, left : left + WIDTH].mean() for top, left in row] for row in corners]


def levels(number, centre, width):
    """Grey levels that slice ``number`` must have through a window, the difference through 0/200 HU."""

    def level(hu, centre, width):
        return round(255 * min(max((hu - centre + width / 2) / width, 0), 1))

    hu = {name: value + number for name, value in OFFSETS.items()}
    above = [level(hu[name], centre, width) for name in ("image", "content", "denoised")]
    below = [level(hu[name], centre, width) for name in ("pred", "label")]
    return [above, [*below, level(hu["pred"] - hu["label"], 0, 200)]]


@pytest.mark.parametrize(("window", "centre", "width"), [("abdomen", 50, 400), ("full", 1024, 4096), ("head", 40, 80)])
def test_grey_levels_through_the_window(tmp_path, window, centre, width):
    validate(PicturePanel(tmp_path, slices=1, window=window), slices=1)
    assert tiles(tmp_path / "slice0_epoch0001.png") == levels(0, centre, width)


@pytest.mark.parametrize(
    ("slices", "of", "chosen"),
    [(2, 5, [1, 3]), (1, 5, [2]), (3, 9, [1, 4, 7]), (2, 1, [0]), (4, 3, [0, 1, 2]), (5, 5, [0, 1, 2, 3, 4])],
)
def test_slices_are_evenly_spaced_and_none_twice(tmp_path, slices, of, chosen):
    validate(PicturePanel(tmp_path, slices=slices), slices=of)
    got = [tiles(tmp_path / f"slice{number}_latest.png") for number in range(len(chosen))]
    assert got == [levels(number, 50, 400) for number in chosen]
    assert len(list(tmp_path.iterdir())) == 2 * len(chosen)


def test_the_same_slices_in_every_epoch_that_the_interval_names(tmp_path):
    validate(PicturePanel(tmp_path, slices=1, interval=2), slices=3, epochs=4)
    names = ["slice0_epoch0001.png", "slice0_epoch0003.png", "slice0_latest.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert all(tiles(tmp_path / name) == levels(1, 50, 400) for name in names)


def test_latest_is_the_last_epochs(tmp_path):
    engine = Engine(lambda engine, _number: output(10 * engine.state.epoch))
    PicturePanel(tmp_path, slices=1).attach(engine)
    engine.run([0], max_epochs=3)
    for name, number in (("epoch0001", 10), ("epoch0003", 30), ("latest", 30)):
        assert tiles(tmp_path / f"slice0_{name}.png") == levels(number, 50, 400)


def test_titles_state_the_window(tmp_path):
    """The strips above the tiles: the five images' differ with the window, the difference's does not."""
    for window in ("abdomen", "bone"):
        validate(PicturePanel(tmp_path / window, slices=1, window=window), slices=1)
    one, other = (np.asarray(Image.open(tmp_path / window / "slice0_latest.png")) for window in ("abdomen", "bone"))
    for row in range(2):
        for column in range(3):
            top, left = row * (HEIGHT + TITLE_HEIGHT + GAP), column * (WIDTH + GAP)
            strips = [grey[top : top + TITLE_HEIGHT, left : left + WIDTH] for grey in (one, other)]
            assert strips[0].max() > 128
            assert np.array_equal(*strips) == ((row, column) == (1, 2))


def test_tensorboard_has_the_files_pixels_and_the_window_in_the_tag(tmp_path):
    with SummaryWriter(tmp_path / "events") as writer:
        validate(PicturePanel(tmp_path, slices=2, window="chest", writer=writer), slices=4, epochs=2)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    tags = [f"slice {number}, window -600/1500 HU" for number in range(2)]
    assert sorted(events.Tags()["images"]) == tags
    for number, tag in enumerate(tags):
        pictures = events.Images(tag)
        assert [picture.step for picture in pictures] == [1, 2]
        (tmp_path / "tb.png").write_bytes(pictures[-1].encoded_image_string)
        shown = np.asarray(Image.open(tmp_path / "tb.png").convert("L"))
        np.testing.assert_array_equal(shown, np.asarray(Image.open(tmp_path / f"slice{number}_epoch0002.png")))


def test_bfloat16_with_gradient_is_drawn(tmp_path):
    """Half precision has no numpy type."""
    engine = Engine(lambda _engine, _: {k: v.bfloat16().requires_grad_() for k, v in output(0).items()})
    PicturePanel(tmp_path, slices=1).attach(engine)
    engine.run([0])
    assert tiles(tmp_path / "slice0_latest.png") == levels(0, 50, 400)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "liver"}, "window to be one of full, chest"),
        ({"slices": 0}, "at least 1"),
        ({"interval": 0}, "at least 1"),
    ],
)
def test_refused_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        PicturePanel(tmp_path, **options)
