import pytest
import torch
from tiny_encoders import WIDTHS, ct_checkpoint
from torch import nn

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.losses.encoders import ConvStages, CTAutoencoder, CTEncoder, frozen
from ct_cncl.pipeline.losses.encoders.ct import CTStages
from ct_cncl.pipeline.networks.branches import pad_to_multiple
from ct_cncl.transforms.common.hu import to_network


def image(height=12, width=9, batch=2):
    return torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(0))


def test_stored_activations():
    """Worked out by hand: two 3x3 convolutions with one weight each, on HU / 500."""
    encoder = CTStages([1])
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.features[0].weight[0, 0, 1, 1] = 2.0
        encoder.features[0].bias[0] = -1.0
        encoder.features[2].weight[0, 0, 1, 2] = 3.0  # looks one pixel to the right
    hu = torch.tensor([[[[-1000.0, 0.0], [500.0, 1500.0]]]])
    conv1, relu1, conv2 = encoder(to_network(hu), ["conv1_1", "relu1_1", "conv1_2"])
    assert conv1.flatten().tolist() == pytest.approx([-5.0, -1.0, 1.0, 5.0], abs=1e-5)
    assert relu1.flatten().tolist() == pytest.approx([0.0, 0.0, 1.0, 5.0], abs=1e-5)
    assert conv2.flatten().tolist() == pytest.approx([0.0, 0.0, 15.0, 15.0], abs=1e-4)  # the border goes on as it is


def test_the_encoder_receives_exactly_what_its_training_used(tmp_path):
    """What the first convolution was given, and what came out, while the autoencoder ran on the same patches."""
    torch.manual_seed(0)
    autoencoder = CTAutoencoder(widths=WIDTHS, code=3)
    stored = {}
    for name, index in autoencoder.encoder.layers.items():
        autoencoder.encoder.features[index].register_forward_hook(
            lambda module, given, out, name=name: stored.update({name: (given[0].detach(), out.detach())})
        )
    autoencoder.train()(image(12, 8))
    torch.save({"network_def": autoencoder.state_dict()}, tmp_path / "best.pt")

    encoder = CTEncoder(weights=tmp_path / "best.pt", widths=WIDTHS)
    assert torch.equal(encoder.prepare(image(12, 8)), stored["conv1_1"][0])
    for name, features in zip(stored, encoder(image(12, 8), list(stored))):
        assert torch.equal(features, stored[name][1]), name


def test_layers_come_in_the_order_asked_for_and_none_deeper_is_computed(tmp_path):
    encoder = CTEncoder(weights=ct_checkpoint(tmp_path / "best.pt"), widths=WIDTHS)
    encoder.features[5] = nn.Identity()  # conv2_1 would fail on its 4 channels, were it reached
    later, earlier = encoder(image(), ["relu1_2", "conv1_1"])
    assert later.shape == earlier.shape == (2, 4, 12, 9)
    assert (later >= 0).all()
    assert (earlier < 0).any()


def test_pixels_of_a_feature():
    stages = CTStages([2, 2, 2])
    assert [stages.pixels(name) for name in ("conv1_1", "relu2_2", "conv3_1")] == [1, 2, 4]
    sizes = [tuple(f.shape[-2:]) for f in stages(image(17, 24), ["conv1_1", "relu2_2", "conv3_1"])]
    assert sizes == [(17, 24), (8, 12), (4, 6)]


@pytest.mark.parametrize("layers", [["conv9_1"], ["conv1_1", "pool1"], []])
def test_unknown_layers(layers):
    with pytest.raises(ValueError, match="Expected layers out of conv1_1"):
        CTStages([2])(image(), layers)


def test_image_too_small_for_the_layer():
    with pytest.raises(ValueError, match="shallower layers"):
        CTStages([2, 2, 2])(image(3, 8), ["conv3_1"])


def test_missing_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(CheckpointError, match=r"--with ct_encoder.*--with encoder_vgg"):
        CTEncoder(weights=tmp_path / "none.pt")


def test_weights_of_other_widths(tmp_path):
    with pytest.raises(CheckpointError, match=r"widths \[4, 8\]"):
        CTEncoder(weights=ct_checkpoint(tmp_path / "best.pt"), widths=[4, 8])


def test_frozen_encoder_learns_nothing_and_passes_gradients_on(tmp_path):
    encoder = frozen(CTEncoder(weights=ct_checkpoint(tmp_path / "best.pt"), widths=WIDTHS).train())
    assert not encoder.training
    x = image().requires_grad_(True)
    encoder(x, ["conv2_2"])[0].square().sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.parametrize("size", [(16, 16), (21, 30), (1, 1)])
def test_autoencoder_draws_images_of_any_size(size):
    """As the image mirrored at its far ends up to whole blocks, and what was added is taken off."""
    torch.manual_seed(0)
    autoencoder = CTAutoencoder(widths=WIDTHS, code=3)
    x = image(*size)
    whole = pad_to_multiple(x, autoencoder.multiple)
    assert all(side % 2 ** (len(WIDTHS) - 1) == 0 for side in whole.shape[-2:])
    drawn = autoencoder(x)
    torch.testing.assert_close(drawn, autoencoder(whole)[..., : size[0], : size[1]], rtol=0, atol=0)
    assert drawn.shape == x.shape
    assert not torch.equal(autoencoder(1 - x), drawn)


def test_autoencoder_learns_to_draw_a_patch():
    """Everything has to pass the code: 3 numbers for 2 x 2 pixels."""
    torch.manual_seed(0)
    autoencoder = CTAutoencoder(widths=[8, 8], code=3)
    coarse = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    patches = nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear") * 0.2 + 0.2
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        loss = (autoencoder(patches) - patches).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.15 * losses[0]
    assert losses[-1] < 0.3 * (patches - patches.mean()).abs().mean()


def test_an_encoder_of_ones_own_must_say_what_it_takes():
    with pytest.raises(NotImplementedError):
        ConvStages([2], [1], in_channels=1)(image(), ["conv1_1"])
