import copy

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from ct_cncl.pipeline.handlers import EMA
from ct_cncl.pipeline.handlers.ema import warmed_up


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def changing(own, iterations, *handlers):
    """An engine whose every iteration sets the weights to its number."""

    def step(engine, _batch):
        with torch.no_grad():
            for tensor in [*own.parameters(), *own.buffers()]:
                tensor.fill_(engine.state.iteration)

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run([None] * iterations, max_epochs=1)
    return engine


def test_equals_the_recursion_worked_out_in_float64():
    own = network()
    start = {name: value.double() for name, value in copy.deepcopy(own).state_dict().items()}
    ema = EMA(own, decay=0.9)
    changing(own, 20, ema)
    for name, value in ema.network.state_dict().items():
        expected = start[name]
        for step in range(1, 21):
            decay = min(0.9, step / (step + 9))
            expected = decay * expected + (1 - decay) * step
        if name.endswith("num_batches_tracked"):
            expected = torch.tensor(20.0)
        torch.testing.assert_close(value.double(), expected.expand_as(value), rtol=1e-5, atol=1e-5, check_dtype=False)


def test_a_constant_network_is_its_own_average():
    own = network()
    ema = EMA(own, decay=0.99)
    engine = Engine(lambda _engine, _batch: None)
    ema.attach(engine)
    engine.run([None] * 5)
    for name, value in ema.network.state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), name


def test_weights_that_two_branches_share_are_averaged_once():
    own = network()
    own.add_module("again", own[0])
    ema = EMA(own, decay=0.5)
    changing(own, 1, ema)
    alone = EMA(network(), decay=0.5)
    changing(alone.source, 1, alone)
    assert torch.equal(ema.network[0].weight, alone.network[0].weight)
    assert ema.network[0].weight is ema.network.again.weight


def test_the_average_is_apart_in_eval_mode_and_without_gradients():
    own = network().train()
    ema = EMA(own, decay=0.5)
    assert ema.network is not own
    assert ema.teacher() is ema.shipped() is ema.network
    assert not ema.network.training
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())
    assert own.training
    assert all(parameter.requires_grad for parameter in own.parameters())


def test_without_a_decay_the_network_stands_for_itself():
    own = network()
    ema = EMA(own)
    engine = changing(own, 2, ema)
    assert ema.network is own
    assert ema.state_dict() == {}
    assert not engine.has_event_handler(ema, Events.ITERATION_COMPLETED)
    with pytest.raises(ValueError, match=r"Set ema\.decay"):
        ema.teacher()


def test_state_goes_into_a_new_average():
    own = network()
    first = EMA(own, decay=0.9)
    changing(own, 3, first)
    second = EMA(network(), decay=0.9)
    second.load_state_dict(first.state_dict())
    for name, value in second.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name]), name


def test_a_run_without_average_takes_none():
    EMA(network()).load_state_dict({})
    with pytest.raises(RuntimeError, match=r"ema\.decay is null"):
        EMA(network()).load_state_dict(EMA(network(), decay=0.5).state_dict())


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, 2])
def test_bad_decay(decay):
    with pytest.raises(ValueError, match="between 0 and 1"):
        EMA(network(), decay=decay)


def test_warm_up_goes_by_the_iteration_and_not_by_the_process():
    """Regression: ignite's handler counts from the start of the process; a resumed run would warm up again."""
    assert warmed_up(0.99, 1) == pytest.approx(0.1)
    assert warmed_up(0.99, 100_000) == 0.99
    own = network()
    ema = EMA(own, decay=0.5)
    engine = Engine(lambda _engine, _batch: None)
    ema.attach(engine)
    engine.state.iteration = 1000
    with torch.no_grad():
        own[0].bias.fill_(2.0)
        ema.network[0].bias.fill_(0.0)
    ema(engine)
    assert ema.network[0].bias.tolist() == pytest.approx([1.0, 1.0])
