import hashlib
from pathlib import Path

import pytest
import torch
from tiny_encoders import vgg_state
from torch.nn import functional

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.losses.encoders import VGG19, vgg
from ct_cncl.transforms.common.hu import to_network

INDEX = {
    "conv1_1": 0,
    "relu1_1": 1,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "relu3_4": 17,
    "conv4_1": 19,
    "conv5_1": 28,
    "relu5_4": 35,
}
"""Positions in torchvision's ``vgg19().features``, from its documentation."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(vgg_state(), path)
    return path


def image(side=32):
    hu = torch.randint(-1024, 1500, (2, 1, side, side), generator=torch.Generator().manual_seed(0)).float()
    return hu, to_network(hu)


def by_hand(x, state, last):
    """torchvision's layers 0 ... ``last`` on ImageNet's normalised colours, but for borders, which go on as they are."""
    for index in range(last + 1):
        if f"features.{index}.weight" in state:
            x = functional.pad(x, (1, 1, 1, 1), mode="replicate")
            x = functional.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"])
        elif index in {4, 9, 18, 27, 36}:
            x = functional.max_pool2d(x, 2)
        else:
            x = x.clamp(min=0)
    return x


def test_features_equal_torchvisions_layout(weights):
    hu, units = image()
    grey = ((hu - (50 - 200)) / 400).clamp(0, 1)
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    colours = (grey.repeat(1, 3, 1, 1) - mean) / deviation
    found = VGG19(weights=weights)(units, list(INDEX))
    for (name, index), features in zip(INDEX.items(), found):
        torch.testing.assert_close(
            features, by_hand(colours, vgg_state(), index), msg=lambda text, name=name: f"{name}: {text}"
        )


def test_features_before_the_activation_are_not_overwritten_by_it(weights):
    before, after = VGG19(weights=weights)(image()[1], ["conv2_2", "relu2_2"])
    assert (before < 0).any()
    torch.testing.assert_close(after, before.clamp(min=0), rtol=0, atol=0)


def test_window_is_the_one_that_is_named(weights):
    _, units = image()
    named, given = (VGG19(weights=weights, window=window).prepare(units) for window in ("chest", [-600, 1500]))
    assert torch.equal(named, given)
    grey = VGG19(weights=weights, window=[50, 100]).prepare(to_network(torch.full((1, 1, 2, 2), 50.0)))
    expected = [(0.5 - m) / s for m, s in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    assert grey[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_unknown_window(weights):
    with pytest.raises(ValueError, match="window to be one of full"):
        VGG19(weights=weights, window="liver")


@pytest.mark.parametrize("content", [{"features.0.weight": torch.zeros(64, 3, 3, 3)}, {"network_def": {}}])
def test_file_of_another_network(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="torchvision's state dict"):
        VGG19(weights=tmp_path / "other.pth")


def test_file_that_would_run_code_is_refused(tmp_path):
    torch.save(VGG19, tmp_path / "code.pth")  # a class: anything but tensors
    with pytest.raises(CheckpointError, match="weights_only"):
        VGG19(weights=tmp_path / "code.pth")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "ct-cncl" / "vgg19-dcbb9e9d.pth"


def test_offline_says_how_to_provide_the_file(cache, monkeypatch):
    monkeypatch.setattr(vgg, "URL", "http://127.0.0.1:9/vgg19-dcbb9e9d.pth")  # nothing listens there
    with pytest.raises(CheckpointError) as error:
        VGG19()
    text = str(error.value)
    assert "\n" not in text
    assert str(cache) in text
    assert "texture.encoder.weights=FILE" in text
    assert not list(cache.parent.iterdir())


def test_published_file_is_downloaded_once_checked_and_cached(cache, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(vgg, "URL", f"file://{weights.parent}/vgg19-dcbb9e9d.pth")
    (weights.parent / "vgg19-dcbb9e9d.pth").write_bytes(weights.read_bytes())
    monkeypatch.setattr(vgg, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    first = VGG19()
    assert cache.read_bytes() == weights.read_bytes()
    (weights.parent / "vgg19-dcbb9e9d.pth").unlink()
    again = VGG19()  # from the cache
    assert torch.equal(first.features[0].weight, again.features[0].weight)


def test_download_with_another_checksum_leaves_nothing(cache, weights, monkeypatch):
    monkeypatch.setattr(vgg, "URL", f"file://{weights.parent}/{weights.name}")
    with pytest.raises(CheckpointError, match="invalid hash"):
        VGG19()
    assert not list(cache.parent.iterdir())


def test_a_cached_file_that_has_changed_is_refused(cache, weights):
    cache.parent.mkdir()
    cache.write_bytes(weights.read_bytes())
    with pytest.raises(CheckpointError, match="Delete it"):
        VGG19()


def test_the_checksum_is_the_one_in_the_published_name():
    assert len(vgg.SHA256) == 64
    name = f"vgg19-{vgg.SHA256[:8]}.pth"
    assert vgg.URL.endswith(f"//download.pytorch.org/models/{name}")


@pytest.mark.parametrize("window", [50, [50], [50, 0], [50, -400], "liver"])
def test_a_window_that_is_none_is_one_line(weights, window):
    with pytest.raises(ValueError, match="Expected window to be"):
        VGG19(weights=weights, window=window)


def test_weights_that_are_not_there_say_where_to_fetch_them(tmp_path):
    with pytest.raises(CheckpointError, match=r"Download https://download.*texture.encoder.weights=FILE"):
        VGG19(weights=tmp_path / "none.pth")


def test_a_cache_that_cannot_be_written_says_how_to_go_on(monkeypatch):
    monkeypatch.setattr(vgg, "cached_file", lambda: Path("/proc/nope/vgg.pth"))
    with pytest.raises(CheckpointError, match="copy it to that path or name it with texture.encoder.weights=FILE"):
        vgg.published_weights()
