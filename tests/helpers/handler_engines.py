"""Engines with a state set by hand, for tests of single handlers."""

from ignite.engine import Engine, Events


def evaluator_stub():
    """An engine that has evaluated nothing yet."""
    engine = Engine(lambda _engine, _batch: None)
    engine.state.epoch, engine.state.metrics = 0, {}
    return engine


def scripted_training(handlers, losses, *, metrics=None, evaluator=None, after=0, iterations=2, then=None):
    """Train to epoch ``len(losses)``; seen from outside, like a CNCLTrainer.

    Args:
        handlers: attached in this order.
        losses: ``epoch_losses`` of each epoch; each iteration puts out the same.
        metrics: what ``evaluator`` finds, by epoch; it does not run in the others.
        evaluator: validated before the handlers.
        after: go on after this epoch, as a resumed run does.
        iterations: in an epoch.
        then: called after the handlers of each epoch.
    """

    def step(engine, _batch):
        return losses[engine.state.epoch - 1]

    trainer = Engine(step)
    trainer.state.epoch_losses = {}

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        engine.state.epoch_losses = losses[engine.state.epoch - 1]
        if metrics and engine.state.epoch in metrics:
            evaluator.state.epoch, evaluator.state.metrics = engine.state.epoch, metrics[engine.state.epoch]

    for handler in handlers:
        handler.attach(trainer)
    if then is not None:
        trainer.add_event_handler(Events.EPOCH_COMPLETED, then)
    if after:
        trainer.load_state_dict(
            {"iteration": after * iterations, "epoch_length": iterations, "max_epochs": len(losses)}
        )
    trainer.run([None] * iterations, max_epochs=len(losses))
    return trainer
