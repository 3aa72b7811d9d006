"""Every overlay of the bundle, at small widths: runs, learns, exports, and is trained by its name."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from overlay_networks import ALL, NETWORKS, RUN, VARIANTS, merged, network, small
from tiny_encoders import WIDTHS, ct_checkpoint
from tiny_runs import assignments
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.inference.api import denoise_scans
from ct_cncl.pipeline.networks import CNCL, REDCNN, BranchOutputs, ConvFusion, InteractingCNCL
from ct_cncl.pipeline.training.run import evaluate_run, train_bundle
from ct_cncl.pipeline.workflow.overlays import overlay_list, variant
from ct_cncl.pipeline.workflow.run import config_file, load_config, overlay_file, own_keys


def image(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def slices(*variants):
    return merged(*variants)["context_slices"]


def test_the_tables_of_the_method_are_all_there():
    notes = {
        *("unet_bn_gelu", "unet_ln_relu", "unet_ln_gelu", "unet_ca", "attn_ln_relu_mdta0_cross1"),
        *("attn_ln_gelu_mdta0_cross1", "attn_bn_gelu_mdta0_cross1", "attn_ca_mdta1_cross1_noskip", "dual"),
    }
    others = {
        "unet_bn_relu",
        "unet_sca",
        "unet_glu",
        "dncnn",
        "srdensenet",
        "nafnet",
        "restormer",
        "redcnn",
        "cncl_fast",
    }
    fusions = {f"fusion_{name}" for name in ("conv1x1", "conv3x3", "gate", "scam", "cross", "restormer")}
    assert notes | others | fusions | {"cross_complementary"} <= set(VARIANTS)


def test_recipes_are_few_and_complete():
    """Each says what network, how long and in what steps; the paper's is train.json as it is."""
    recipes = {path.stem for path in config_file("recipes").glob("*.json")}
    assert recipes == {"paper", "fast", "quarter_dose", "fine_tune", "demo"}
    for name in recipes:
        keys = own_keys(overlay_file(name))
        assert {
            "network_def",
            "batch_size",
            "max_epochs" if name != "fast" else "lr_scheduler",
            "learning_rate",
        } <= set(keys)
    assert merged("paper") == load_config([config_file("train.json")])


def test_the_shipped_network_is_one_wherever_it_stands():
    network = own_keys(overlay_file("cncl_fast"))["network_def"]
    for name in ("fast", "quarter_dose", "fine_tune"):
        assert own_keys(overlay_file(name))["network_def"] == network
    assert load_config([config_file("inference.json")])["network_def"] == network


def test_the_list_names_every_overlay_with_a_line():
    said = overlay_list()
    lines = {line.split()[0]: line for line in said.splitlines() if line.startswith("  ")}
    assert sorted(lines) == sorted(ALL)
    assert all(len(line.split()) > 2 for line in lines.values())
    assert said.splitlines()[0] == "recipes"


def test_the_order_is_checked_where_it_matters():
    with pytest.raises(
        ConfigError, match=r"nafnet before width16, whose network_def.content.width .* Name nafnet first"
    ):
        merged("width16", "nafnet")
    with pytest.raises(ConfigError, match=r"fast before gan_spectral, whose discriminator._target_"):
        merged("gan_spectral", "fast")
    assert merged("nafnet", "width16")["network_def"]["noise"]["width"] == 16
    with pytest.raises(ConfigError, match=r"width16: .*network_def\.content\.width"):
        merged("redcnn", "width16")  # it has no branches


def test_settings_are_part_of_a_variant():
    one = variant("cncl_fast+texture.weight=1+learning_rate=1e+3")
    assert (one.settings, one.overlays) == (("texture.weight=1", "learning_rate=1e+3"), (overlay_file("cncl_fast"),))
    config = one.config()
    assert (config["texture"]["weight"], config["learning_rate"]) == (1, 1000.0)
    assert merged("cncl_fast")["texture"]["weight"] == 0  # and of that variant alone
    with pytest.raises(ConfigError, match=r"did you mean texture\.weight"):
        variant("cncl_fast+texture.wieght=1").config()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(("texture_weight", "texture.weight"), ("ema_decay", "ema.decay"), ("dose_range", "patches.dose_range")),
        *(("patch_size", "patches.size"), ("patches_per_epoch", "patches.per_epoch"), ("batch_sise", "batch_size")),
    ],
)
def test_the_nearest_key_is_suggested_wherever_it_is(old, new):
    with pytest.raises(ConfigError, match=f"did you mean {new}"):
        variant(f"paper+{old}=1").config()


@pytest.mark.parametrize("name", NETWORKS)
def test_forward_at_odd_sizes(name):
    built, count = network(name).eval(), slices(name)
    with torch.no_grad():
        for size in ((1, 1), (5, 7), (200, 331)):
            output = built(image(1, count, *size))
            assert output.shape == (1, 1, *size)
            assert output.isfinite().all()
        both = built(image(2, count, 21, 30))
        torch.testing.assert_close(built(image(2, count, 21, 30)[:1]), both[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_has_a_gradient_from_the_result_alone(name):
    """DistributedDataParallel waits for ever for a parameter that is not used, whatever the weights of the losses."""
    without = []
    for seed in range(3):  # one set of weights may have a ReLU that lets nothing through
        built = network(name, seed=seed).train()
        built(image(1, slices(name), 21, 30)).square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())
        without.append({n for n, p in built.named_parameters() if not p.grad.abs().sum() > 0})
    assert set.intersection(*without) == set()


@pytest.mark.parametrize("name", NETWORKS)
def test_torchscript_equals_the_network(name):
    built = network(name).eval()
    scripted = torch.jit.script(built)
    for size in ((21, 30), (16, 16), (3, 2)):
        x = image(1, slices(name), *size)
        with torch.no_grad():
            torch.testing.assert_close(scripted(x), built(x), rtol=0, atol=1e-5)
            if isinstance(built, CNCL):
                for got, expected in zip(scripted.branches(x), built.branches(x)):
                    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_equals_the_network(name, tmp_path):
    """Exported with an odd size, so that the padding is part of the graph; run with others."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    built, path, count = network(name).eval(), tmp_path / "model.onnx", slices(name)
    axes = {0: "batch", 2: "height", 3: "width"}
    options = {"input_names": ["image"], "output_names": ["fused"], "dynamic_axes": {"image": axes, "fused": axes}}
    torch.onnx.export(built, (image(1, count, 21, 30),), str(path), opset_version=17, dynamo=False, **options)
    session = runtime.InferenceSession(str(path))
    for shape in ((1, count, 21, 30), (2, count, 35, 33), (1, count, 24, 40)):
        with torch.no_grad():
            expected = built(image(*shape))
        got = session.run(None, {"image": image(*shape).numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=0, atol=1e-4)


@pytest.fixture
def process_group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def two_steps(module, count=1):
    parallel = DistributedDataParallel(BranchOutputs(module), find_unused_parameters=False)
    for _ in range(2):  # DDP refuses the second step where the first left a parameter out
        torch.stack([branch.square().mean() for branch in parallel(image(1, count, 8, 8))]).sum().backward()


def test_distributed_data_parallel_finds_no_unused_parameter(process_group):
    for name in NETWORKS:
        two_steps(network(name).train(), slices(name))


def test_distributed_data_parallel_would_notice_one(process_group):
    spoilt = network("unet_bn_relu").train()
    spoilt.content.never_used = nn.Linear(1, 1)
    with pytest.raises(RuntimeError, match="Expected to have finished reduction"):
        two_steps(spoilt)


def files_for(name, tiny_run, folder):
    """Overrides that name the files an overlay asks for: a tiny encoder, a teacher."""
    config, overrides = merged(name), {}
    if max(config["texture"]["weight"], config["perceptual"]["weight"]) > 0:
        path = str(ct_checkpoint(folder / "encoder.pt"))
        overrides = {"texture#encoder#weights": path, "texture#encoder#widths": WIDTHS}
    if config["patches"]["dose_range"] is not None:  # the tiny data have no noise realizations
        overrides |= {"patches#dose_range": None, "patches#nested_dose_range": None}
    if config["patches"]["zoom_range"] is not None:  # and are 40 pixels wide
        overrides |= {"patches#size": 24}
    if "teacher_checkpoint" in config:
        overrides["teacher_checkpoint"] = str(tiny_run / "best.pt")
    return overrides


@pytest.mark.parametrize("name", VARIANTS)
def test_trains_evaluates_and_denoises_by_its_name(name, tiny_dataset, tiny_run, tmp_path):
    run = tmp_path / "run"
    overrides = small(name) | RUN | {"max_epochs": 1, "precision": "fp32"} | files_for(name, tiny_run, tmp_path)
    if merged(name)["discriminator"] is None:
        del overrides["discriminator#channels"]
    train_bundle(out=run, data=tiny_dataset, overlays=[name], assignments=assignments(overrides))
    metrics = evaluate_run(run, assignments=["progress=false"])
    assert all(np.isfinite(value) for value in metrics.values())

    hu = np.random.default_rng(0).integers(-1024, 3071, (21, 30, 2)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-0.7, -0.7, 5.0, 1.0])), tmp_path / "scan.nii.gz")
    (written,) = denoise_scans(tmp_path / "scan.nii.gz", tmp_path / "out", weights=run / "best.pt", progress=False)
    result = np.asanyarray(nib.load(written).dataobj)
    assert result.shape == hu.shape
    assert (result != hu).any()


@pytest.mark.parametrize(
    "names",
    [
        ("unet_ln_gelu", "width16", "residual", "dual", "fusion_features_gate"),
        ("nafnet", "width16", "cross_complementary", "fusion_scam"),
        ("restormer", "narrow", "fusion_restormer"),
        ("nafnet_dncnn", "cross", "fusion_features_cross"),
        ("cncl_fast", "fusion_conv3x3", "narrow"),
        ("attn_ca_mdta1_cross1", "dual"),
        ("srdensenet", "mdta", "fusion_gate"),
        ("context_slices=3", "cncl_fast"),
        ("redcnn", "context_slices=3"),
        ("restormer", "context_slices=3"),
        ("srdensenet", "context_slices=3"),
        ("nafnet_dncnn", "context_slices=3"),
    ],
)
def test_overlays_combine(names):
    built = network(*names).eval()
    config = merged(*names)
    interacts = "levels" in config["network_def"] or "features" in str(names)
    assert isinstance(built, InteractingCNCL if interacts else REDCNN if "redcnn" in names else CNCL)
    with torch.no_grad():
        assert built(image(1, slices(*names), 21, 30)).isfinite().all()
        x = image(1, slices(*names), 9, 8)
        torch.testing.assert_close(torch.jit.script(built)(x), built(x))


@pytest.mark.parametrize(
    "names",
    [
        ("cncl_fast",),
        ("narrow",),
        ("residual",),
        ("nafnet",),
        ("unet_ca", "dual", "residual"),
        ("cncl_fast", "context_slices=3"),
        ("narrow", "context_slices=3"),
    ],
)
def test_residual_variants_start_at_the_input_exactly(names):
    x = image(1, slices(*names), 200, 331)
    centre = x[:, slices(*names) // 2][:, None]
    with torch.no_grad():
        content, noise, fused = network(*names, perturbed=False).eval().branches(x)
    assert torch.equal(content, centre)
    assert torch.equal(noise, torch.zeros_like(centre))
    assert torch.equal(fused, centre)


def full_size(*variants):
    parser = ConfigParser()
    parser.read_config(merged(*variants))
    with torch.device("meta"):
        return parser.get_parsed_content("network_def")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_papers_overlay_is_the_papers_network():
    built = full_size("unet_bn_relu")
    assert parameters(built) / 1e6 == pytest.approx(43.8, abs=0.05)
    assert type(built) is CNCL
    assert type(built.fusion) is ConvFusion


def test_redcnn_overlay_is_one_network_without_adversary():
    config = merged("redcnn")
    assert type(full_size("redcnn")) is REDCNN
    assert parameters(full_size("redcnn")) / 1e6 == pytest.approx(1.85, abs=0.005)
    assert config["discriminator"] is None


def test_fast_default_has_a_twelfth_of_the_papers_parameters():
    assert parameters(full_size("cncl_fast")) <= parameters(full_size("unet_bn_relu")) / 12


@pytest.mark.parametrize(
    ("name", "norm", "activation", "attention", "mdta", "cross", "skip"),
    [
        ("unet_bn_gelu", "BatchNorm2d", "GELU", None, 0, 0, True),
        ("unet_ln_relu", "LayerNorm2d", "ReLU", None, 0, 0, True),
        ("unet_ln_gelu", "LayerNorm2d", "GELU", None, 0, 0, True),
        ("unet_ca", "LayerNorm2d", "GELU", "ChannelAttention", 0, 0, True),
        ("unet_sca", "LayerNorm2d", "GELU", "SimpleChannelAttention", 0, 0, True),
        ("unet_glu", "LayerNorm2d", "SimpleGate", None, 0, 0, True),
        ("attn_ln_relu_mdta0_cross1", "LayerNorm2d", "ReLU", None, 0, 1, True),
        ("attn_ln_gelu_mdta0_cross1", "LayerNorm2d", "GELU", None, 0, 1, True),
        ("attn_bn_gelu_mdta0_cross1", "BatchNorm2d", "GELU", None, 0, 1, True),
        ("attn_ca_mdta1_cross1_noskip", "LayerNorm2d", "GELU", "ChannelAttention", 1, 1, False),
    ],
)
def test_columns_of_the_notes_are_what_their_names_say(name, norm, activation, attention, mdta, cross, skip):
    built = full_size(name)
    for branch in (built.content, built.noise):
        kinds = [type(m).__name__ for m in branch.modules()]
        assert kinds.count(norm) == 16
        assert kinds.count(activation) == 16
        assert (kinds.count(attention) == 8) if attention else not any("Attention" in kind for kind in kinds)
    interactions = getattr(built, "interactions", nn.ModuleList())
    kinds = [type(m).__name__ for m in interactions.modules()]
    assert (kinds.count("MDTA"), kinds.count("CrossAttention")) == (2 * mdta, cross)
    if cross:
        assert kinds.count("LayerNorm2d") == (2 * mdta + 2 * cross if skip else 0)
        assert all(m.skip is skip for m in interactions.modules() if hasattr(m, "skip"))
