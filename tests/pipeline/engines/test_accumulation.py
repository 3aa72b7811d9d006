"""A batch in parts takes the step of the whole batch."""

import copy

import pytest
import torch
from tiny_trainer import Judge, trainer
from torch import nn

from ct_cncl.pipeline.engines.memory import MemoryShortageError
from ct_cncl.pipeline.networks import CNCL, ConvFusion, UNet


def network(norm="none"):
    torch.manual_seed(1)
    return CNCL(content=UNet(width=4, depth=1, norm=norm), noise=UNet(width=4, depth=1, norm=norm), fusion=ConvFusion())


def trained(*, accumulate, judge=None, count=6, size=6, norm="none", **options):
    generator = network(norm)
    judge = copy.deepcopy(judge)
    engine = trainer(generator, judge=judge, count=count, accumulate=accumulate, **options)
    engine.data_loader = torch.utils.data.DataLoader(engine.data_loader.dataset, batch_size=size)
    engine.state.epoch_length = None
    engine.run()
    return generator, judge, {name: value.item() for name, value in engine.state.output.items()}


@pytest.mark.parametrize("accumulate", [2, 3, 4, 6, 9])
@pytest.mark.parametrize("options", [{}, {"d_every": 2}, {"clip_grad_norm": 0.01}])
def test_parts_step_as_the_whole(accumulate, options):
    """Also where they differ in size (6 patches in 4) and where there are more than patches."""
    torch.manual_seed(0)
    judge = Judge()
    options = {"judge": judge, "adversarial_weight": 0.5, "max_epochs": 3} | options
    whole, whole_judge, expected = trained(accumulate=1, **options)
    parts, parts_judge, found = trained(accumulate=accumulate, **options)
    assert not torch.equal(whole.content.down[0][0].weight, network().content.down[0][0].weight)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)
    for one, other in zip(parts_judge.parameters(), whole_judge.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(found) == list(expected)


def test_the_discriminator_sees_the_batch_in_parts_and_the_generator_runs_once_more():
    torch.manual_seed(0)
    judge, forwards = Judge(), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, _: forwards.append(len(inputs[0])) if isinstance(module, ConvFusion) else None
    )
    try:
        _, seen, _ = trained(accumulate=3, judge=judge)
    finally:
        handle.remove()
    assert [len(batch) for batch in seen.seen] == [4, 4, 4, 2, 2, 2]
    assert forwards == [2] * 6


def test_running_statistics_count_every_patch_once():
    torch.manual_seed(0)
    alone, _, _ = trained(accumulate=2, norm="batch")
    judged, _, _ = trained(accumulate=2, norm="batch", judge=Judge(), adversarial_start=10**6)
    for one, other in zip(judged.buffers(), alone.buffers(), strict=True):
        assert torch.equal(one, other)


def test_pixel_weights_are_cut_with_their_patches():
    items = [
        {"image": torch.full((1, 8, 8), 0.3), "label": torch.zeros(1, 8, 8), "weight": torch.full((1, 8, 8), float(n))}
        for n in range(6)
    ]
    found = []
    for accumulate in (1, 2):
        engine = trainer(network(), accumulate=accumulate)
        engine.data_loader = torch.utils.data.DataLoader(items, batch_size=6)
        engine.state.epoch_length = None
        engine.run()
        found.append(engine.state.output["loss"].item())
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_a_step_that_does_not_fit_names_the_settings():
    class Large(Judge):
        def forward(self, x):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(MemoryShortageError) as caught:
        trainer(network(), judge=Large(), accumulate=2).run()
    for words in ("2 patches of 8 x 8", "accumulate (now 2)", "recompute_activations", "batch_size", "patches.size"):
        assert words in str(caught.value)


def test_no_parts_are_refused():
    with pytest.raises(ValueError, match="whole numbers of at least 1, but got 1 and 0"):
        trainer(network(), accumulate=0)
