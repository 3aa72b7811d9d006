import functools

import pytest
import torch
from tiny_encoders import WIDTHS, ct_checkpoint, vgg_state

from ct_cncl.pipeline.losses import FeatureLoss, content_distance, texture_distance
from ct_cncl.pipeline.losses.encoders import VGG19, CTEncoder
from ct_cncl.pipeline.networks import Branches
from ct_cncl.pipeline.networks.precision import DTYPES
from ct_cncl.pipeline.workflow.locations import installed_bundle
from ct_cncl.transforms.common.hu import to_network

CPU = torch.device("cpu")
LAYERS = ["conv1_2", "relu2_1"]


@pytest.fixture
def encoder(tmp_path):
    return functools.partial(CTEncoder, weights=ct_checkpoint(tmp_path / "best.pt"), widths=WIDTHS)


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 1, 16, 12, generator=generator) for _ in range(5)]


def features(encoder, image):
    """In units of what 25 HU of noise on 50 HU change, worked out anew."""
    built = encoder()
    tissue = torch.full((1, 1, 64, 64), 50.0)
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    clean, noisy = (built((hu + 1024) / 4096, LAYERS) for hu in (tissue, tissue + 25 * noise))
    units = [((a - b) ** 2).mean() ** 0.5 for a, b in zip(clean, noisy)]
    return [own / unit for own, unit in zip(built(image, LAYERS), units)]


def branches(tensors):
    content, noise, fused, *_ = tensors
    return Branches(content, noise, fused)


def test_terms_equal_the_mean_over_layers(encoder, tensors):
    *_, image, label = tensors
    loss = FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=3.0, perceptual=0.5, norm="l2")
    terms = loss(branches(tensors), image, label)
    pairs = list(zip(features(encoder, tensors[2]), features(encoder, label)))
    texture = sum(texture_distance(a, b) for a, b in pairs).item() / 2
    perceptual = sum(content_distance(a, b, norm="l2") for a, b in pairs).item() / 2
    expected = {"texture_fused": 3 * texture, "perceptual_fused": 0.5 * perceptual}
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(expected, rel=1e-5)


def test_each_image_is_the_one_it_is_called(encoder, tensors):
    content, noise, fused, image, label = tensors
    loss = FeatureLoss(
        encoder, layers=LAYERS, device=CPU, texture=1.0, images=["content", "denoised", "fused"], perceptual=1.0
    )
    context = torch.cat([torch.zeros_like(image), image, torch.ones_like(image)], dim=1)  # three slices, one denoised
    terms = loss(Branches(content, noise, fused), context, label)
    for name, own in (("content", content), ("denoised", image - noise), ("fused", fused)):
        alone = FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, perceptual=1.0)
        expected = alone(Branches(own, own, own), image, label)
        for kind in ("texture", "perceptual"):
            assert terms[f"{kind}_{name}"].item() == pytest.approx(expected[f"{kind}_fused"].item(), rel=1e-6)
    assert len(terms) == 6


def test_window_is_in_pixels_at_every_layer(encoder, tensors):
    *_, image, label = tensors
    loss = FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, window=4)
    (term,) = loss(branches(tensors), image, label).values()
    first, second = zip(features(encoder, tensors[2]), features(encoder, label))
    expected = (texture_distance(*first, window=4) + texture_distance(*second, window=2)) / 2
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_window_smaller_than_a_feature_is_refused(encoder):
    with pytest.raises(ValueError, match="at least 2 pixels"):
        FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, window=1)
    with pytest.raises(ValueError, match="at least 4 pixels"):  # one feature less its own mean is nothing
        FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, window=3, centred=True)


def test_perfect_result_costs_nothing(encoder, tensors):
    content, noise, _, image, label = tensors
    loss = FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, perceptual=1.0, window=4)
    assert [term.item() for term in loss(Branches(content, noise, label), image, label).values()] == [0, 0]


def test_without_weight_no_encoder_is_built(tensors):
    def never():
        raise AssertionError("built")

    loss = FeatureLoss(never, layers=LAYERS, device=CPU)
    assert loss(branches(tensors), *tensors[3:]) == {}


def test_encoder_is_built_once_frozen_and_in_eval_mode(encoder, tensors):
    built = []

    def build():
        built.append(encoder().train())
        return built[-1]

    loss = FeatureLoss(build, layers=LAYERS, device=CPU, texture=1.0)
    fused = tensors[2].requires_grad_(True)
    for _ in range(2):
        sum(loss(branches(tensors), *tensors[3:]).values()).backward()
    assert len(built) == 1
    assert not built[0].training
    assert all(p.grad is None and not p.requires_grad for p in built[0].parameters())
    assert fused.grad.abs().sum() > 0


def test_noise_of_25_hu_is_one_unit_whatever_the_scale_of_the_encoder(encoder):
    """So that a weight means the same for every encoder and layer."""
    label = torch.full((4, 1, 64, 64), (50.0 + 1024) / 4096)
    noisy = label + 25 / 4096 * torch.randn(label.shape, generator=torch.Generator().manual_seed(5))
    terms = []
    for scale in (1.0, 40.0):

        def scaled(scale=scale):
            built = encoder()
            with torch.no_grad():
                built.features[2].weight.mul_(scale)
                built.features[2].bias.mul_(scale)
            return built

        loss = FeatureLoss(scaled, layers=["conv1_2"], device=CPU, texture=1.0, perceptual=1.0, norm="l2")
        terms.append({key: t.item() for key, t in loss(Branches(noisy, noisy, noisy), label, label).items()})
    assert terms[0]["perceptual_fused"] == pytest.approx(1.0, rel=0.1)
    assert terms[1] == pytest.approx(terms[0], rel=1e-3)


@pytest.mark.parametrize("window", [None, 16])
def test_losses_do_not_depend_on_patch_or_batch_size(encoder, window):
    """The same noise on the same tissue: the same images more often, exactly; larger patches, but for borders that the encoder pads."""
    generator = torch.Generator().manual_seed(3)

    def terms(batch, side, repeats=1):
        label = 0.26 + 0.005 * torch.randn(batch, 1, side, side, generator=generator.manual_seed(3))
        noisy = label + 0.005 * torch.randn(label.shape, generator=generator)
        label, noisy = label.repeat(repeats, 1, 1, 1), noisy.repeat(repeats, 1, 1, 1)
        loss = FeatureLoss(encoder, layers=LAYERS, device=CPU, texture=1.0, perceptual=1.0, window=window)
        return [term.item() for term in loss(Branches(noisy, noisy, noisy), label, label).values()]

    assert terms(2, 64, repeats=5) == pytest.approx(terms(2, 64), rel=1e-5)
    assert terms(4, 256) == pytest.approx(terms(16, 64), rel=0.15)  # a sum over positions: 16 times as much


@pytest.mark.parametrize("hu", [50.0, -850.0])
def test_centred_texture_is_1_where_all_noise_is_gone_whatever_the_patch(hu):
    """With the encoder that ships, in soft tissue and in lung: borders of a patch are no edges of anatomy."""
    weights = installed_bundle() / "models" / "ct_encoder.pt"
    encoder = CTEncoder(weights=weights)
    loss = FeatureLoss(lambda: encoder, layers=["conv1_2", "conv2_2"], device=CPU, texture=1.0, window=16, centred=True)
    found = []
    for side, count in ((32, 64), (64, 16), (128, 4)):
        noise = 25 * torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
        reference, flat = to_network(hu + noise), to_network(torch.full_like(noise, hu))
        (term,) = loss(Branches(flat, flat, flat), reference, reference).values()
        found.append(term.item())
    assert found == pytest.approx([1.0] * 3, abs=0.12)
    assert max(found) - min(found) < 0.02


def test_a_layer_that_sees_no_noise_is_refused(encoder):
    def blind():
        built = encoder()
        torch.nn.init.zeros_(built.features[0].weight)
        return built

    with pytest.raises(ValueError, match="conv1_2 does not"):
        FeatureLoss(blind, layers=LAYERS, device=CPU, texture=1.0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["ct", "vgg"])
def test_gradients_are_finite_under_mixed_precision(name, precision, encoder, tmp_path, tensors, monkeypatch):
    """As on CUDA, on the CPU; the distances in float32; contrast that overflows float16 where it is squared."""
    if name == "vgg":
        torch.save(vgg_state(), tmp_path / "vgg.pth")
        encoder = functools.partial(VGG19, weights=tmp_path / "vgg.pth", window=[0, 2])
    monkeypatch.setattr(
        "ct_cncl.pipeline.losses.feature.autocast",
        lambda device, name: torch.autocast("cpu", dtype=DTYPES[name], enabled=name != "fp32"),
    )
    layers = ["conv1_2", "conv2_2"]
    loss = FeatureLoss(encoder, layers=layers, device=CPU, texture=1.0, perceptual=1.0, precision=precision)
    fused = (100 * tensors[2]).requires_grad_(True) if name == "ct" else tensors[2].requires_grad_(True)
    terms = loss(Branches(fused, fused, fused), *tensors[3:])
    assert all(term.dtype == torch.float32 and term.isfinite() for term in terms.values())
    sum(terms.values()).backward()
    assert fused.grad.isfinite().all()
    if name == "ct":
        assert fused.grad.abs().sum() > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_on_cuda_is_close_to_fp32(precision, encoder, tensors):
    device, terms = torch.device("cuda"), {}
    moved = [tensor.to(device) for tensor in tensors]
    for name in ("fp32", precision):
        loss = FeatureLoss(encoder, layers=LAYERS, device=device, texture=1.0, perceptual=1.0, precision=name)
        terms[name] = {key: value.item() for key, value in loss(branches(moved), *moved[3:]).items()}
    assert terms[precision] == pytest.approx(terms["fp32"], rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texture": -1.0}, "weights of at least 0"),
        ({"texture": 1.0, "images": ["label"]}, "images out of content"),
        ({"texture": 1.0, "images": []}, "images out of content"),
        ({"perceptual": 1.0, "norm": "l3"}, "'l1' or 'l2'"),
        ({"perceptual": 1.0, "layers": ["conv7_1"]}, "layers out of conv1_1"),
    ],
)
def test_refused_options(options, message, encoder):
    with pytest.raises(ValueError, match=message):
        FeatureLoss(encoder, device=CPU, **{"layers": LAYERS} | options)
