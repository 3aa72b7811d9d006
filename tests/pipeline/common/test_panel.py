import numpy as np
import pytest
from PIL import Image

from ct_cncl.pipeline.common.panel import GAP, TITLE_HEIGHT, Tile, comparison_panel, picture_panel, save_png
from ct_cncl.transforms.common.hu import Window

WIDTH, HEIGHT = 30, 20


def tile_at(grey, row, column):
    left, top = column * (WIDTH + GAP) + GAP // 2, row * (HEIGHT + TITLE_HEIGHT + GAP) + TITLE_HEIGHT
    return grey[top : top + HEIGHT, left : left + WIDTH]


def test_grey_levels_and_axes():
    hu = np.random.default_rng(0).uniform(-300, 400, (WIDTH, HEIGHT))  # (x, y)
    grey = picture_panel([[Tile("a", hu, Window(50, 400))]])
    expected = (np.clip((hu + 150) / 400, 0, 1) * 255).T
    assert grey.dtype == np.uint8
    assert np.abs(tile_at(grey, 0, 0) - expected).max() <= 0.5 + 1e-3


@pytest.mark.filterwarnings("error")
def test_a_diverged_network_is_black_where_it_has_no_value():
    hu = np.full((WIDTH, HEIGHT), 250.0)
    hu[3, 5] = np.nan
    shown = tile_at(picture_panel([[Tile("a", hu, Window(50, 400))]]), 0, 0)
    assert (shown[5, 3], set(np.unique(np.delete(shown.ravel(), 5 * WIDTH + 3)))) == (0, {255})


def test_comparison_places():
    values = {"image": -110, "content": -70, "denoised": -30, "result": 80, "reference": 60}
    flat = {name: np.full((WIDTH, HEIGHT), value) for name, value in values.items()}
    grey = comparison_panel(**flat)
    levels = [[tile_at(grey, row, column) for column in range(3)] for row in range(2)]
    for row, column, expected in (
        (0, 0, 40 / 400),
        (0, 1, 80 / 400),
        (0, 2, 120 / 400),
        (1, 0, 230 / 400),
        (1, 1, 210 / 400),
        (1, 2, (20 + 100) / 200),
    ):
        assert set(np.unique(levels[row][column])) == {round(255 * expected)}


def test_title_is_drawn():
    grey = picture_panel([[Tile("title", np.full((WIDTH, HEIGHT), -2000), Window(0, 200))]])
    assert grey[:TITLE_HEIGHT].max() > 128
    assert grey[TITLE_HEIGHT:].max() == 0


@pytest.mark.parametrize("rows", [[], [[]]])
def test_no_tile(rows):
    with pytest.raises(ValueError, match="one shape"):
        picture_panel(rows)


def test_other_shapes_or_ragged_rows():
    one, other = (Tile("a", np.zeros(shape), Window(0, 200)) for shape in ((4, 4), (4, 5)))
    for rows in ([[one, other]], [[one, one], [one]]):
        with pytest.raises(ValueError, match="one shape"):
            picture_panel(rows)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_png_round_trip(tmp_path, shape):
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = save_png(grey, tmp_path / "new" / "picture.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), grey)
    assert [p.name for p in path.parent.iterdir()] == ["picture.png"]
