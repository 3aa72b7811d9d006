import logging

from handler_engines import evaluator_stub, scripted_training

from ct_cncl.pipeline.handlers import StatsLog

METRICS = {
    f"{name}{suffix}": first + place
    for name, first in (("psnr", 10.0), ("ssim", 0.5), ("rmse", 100.0))
    for place, suffix in enumerate(("", "_input", "_content", "_denoised"))
}
"""Every figure another number, so that none can stand in another's place."""


def lines(caplog, handler, losses, **options):
    with caplog.at_level(logging.INFO, logger="ct_cncl"):
        scripted_training([handler], losses, **options)
    return [record.getMessage() for record in caplog.records if record.name.startswith("ct_cncl")]


def test_structure_in_the_removed_noise_is_in_the_line(caplog):
    evaluator = evaluator_stub()
    metrics = {1: METRICS | {"edge_correlation": 0.1234, "validation_loss": 1.23456}}
    got = lines(caplog, StatsLog(data_range=4096, evaluator=evaluator), [{}], metrics=metrics, evaluator=evaluator)
    assert got[2].endswith(
        "RMSE 100.00 HU (input 101.00), pixel losses 1.235, correlation of N(y) with edges 0.123 (0 is best)."
    )


def test_lines_of_a_validated_epoch(caplog):
    evaluator = evaluator_stub()
    got = lines(
        caplog,
        StatsLog(data_range=4096, evaluator=evaluator),
        [{"loss": 123.456, "loss_content": 0.00012345, "d_real": -1.0}],
        metrics={1: METRICS},
        evaluator=evaluator,
    )
    assert got[0].startswith("Terms: y is the low-dose image, x the full-dose image. C(y) and y - N(y) are")
    assert "discriminator" not in got[0]
    assert got[1:] == [
        "Epoch 1 of 1, means: loss 123.5, content 0.0001234, d_real -1.",
        "Validation, range 4096 HU: PSNR 10.00 dB (input 11.00, C(y) 12.00, y - N(y) 13.00), SSIM 0.5000 (input 1.5000), RMSE 100.00 HU (input 101.00).",
    ]


def test_the_last_validation_is_not_said_again(caplog):
    evaluator = evaluator_stub()
    handler = StatsLog(data_range=400, evaluator=evaluator)
    got = lines(caplog, handler, [{"loss": n} for n in (1.0, 2.0, 3.0)], metrics={2: METRICS}, evaluator=evaluator)
    assert [line.split(":")[0] for line in got] == [
        "Terms",  # once
        "Epoch 1 of 3, means",
        "Epoch 2 of 3, means",
        "Validation, range 400 HU",
        "Epoch 3 of 3, means",
    ]


def test_without_an_evaluator(caplog):
    assert lines(caplog, StatsLog(data_range=400), [{"loss": 2.0}])[1:] == ["Epoch 1 of 1, means: loss 2."]


def test_terms_of_the_discriminator_are_explained_where_there_is_one(caplog):
    (said, _) = lines(caplog, StatsLog(data_range=400), [{"loss": 2.0, "loss_discriminator": 1.0}])
    assert said.endswith("d_accuracy is how often it is right (0.5 is guessing).")
