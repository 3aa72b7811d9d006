"""Values that a training would run with and leave nothing behind: refused in one line before anything is made."""

import pytest

from ct_cncl.pipeline.common.errors import ConfigError
from ct_cncl.pipeline.workflow.run_values import check_paths, check_run_values

GOOD = {"max_epochs": 3, "val_interval": 1, "patches": {"per_epoch": 8}, "batch_size": 4, "learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"max_epochs": 1.5}, "a whole number of at least 1 for max_epochs, but got 1.5"),
        ({"max_epochs": 2.0}, "for max_epochs, but got 2.0"),
        ({"max_epochs": 0}, "for max_epochs, but got 0"),
        ({"max_epochs": True}, "for max_epochs, but got True"),
        ({"val_interval": 0}, "for val_interval, but got 0"),
        ({"batch_size": 9}, "patches.per_epoch to fill a batch, but got 8 for batch_size 9: nothing would be trained"),
        ({"batch_size": -1}, "for batch_size, but got -1"),
        (
            {"train": {"dataloader": {"num_workers": -1}}},
            "a whole number of at least 0 for train.dataloader.num_workers",
        ),
        ({"validate": {"dataset": {"max_slices": 0}}}, "for validate.dataset.max_slices, but got 0"),
        ({"learning_rate": 0}, "a number above 0 for learning_rate, but got 0"),
        ({"learning_rate": float("nan")}, "for learning_rate, but got nan"),
        ({"learning_rate": float("inf")}, "for learning_rate, but got inf"),
        ({"max_epochs": None}, "a number for max_epochs, but got None"),
        ({"patches": {"per_epoch": 8, "size": [64, 64]}}, "a number for patches.size, but got [64, 64]"),
        ({"train": {"trainer": {"accumulate": "x"}}}, "a number for train.trainer.accumulate, but got 'x'"),
        ({"validate": {"dataset": {"max_slices": ".nan"}}}, "a number for validate.dataset.max_slices, but got '.nan'"),
        ({"ema": {"decay": "high"}}, "a number for ema.decay, but got 'high'"),
        ({"network_def": {"init_std": ".nan"}}, "a number for network_def.init_std, but got '.nan'"),
        (
            {"patches": {"per_epoch": 8, "dose_range": "[.nan,1]"}},
            "two numbers for patches.dose_range, for example [0.5, 1], but got",
        ),
        ({"patches": {"per_epoch": 8, "lesion_prob": 2}}, "a number from 0 to 1 for patches.lesion_prob, but got 2"),
        ({"patches": {"per_epoch": 8, "lesions_most": 0}}, "of at least 1 for patches.lesions_most, but got 0"),
        ({"patches": {"per_epoch": 8, "lesion_weight": 0}}, "a number above 0 for patches.lesion_weight, but got 0"),
        (
            {"patches": {"per_epoch": 8, "lesion_prob": -0.5}},
            "a number from 0 to 1 for patches.lesion_prob, but got -0.5",
        ),
        ({"pixel_loss": {"content": float("nan")}}, "a finite number for pixel_loss.content, but got nan"),
        ({"texture": {"weight": float("inf")}}, "a finite number for texture.weight, but got inf"),
        ({"optimizer": {"betas": [float("nan"), 0.9]}}, "a finite number for optimizer.betas.0, but got nan"),
    ],
)
def test_refused(change, words):
    with pytest.raises(ConfigError) as caught:
        check_run_values(GOOD | change)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"batch_size": 8},
        {"val_interval": 4},
        {"max_epochs": "$2 + 1"},
        {"val_interval": "@max_epochs"},
        {"validate": {"dataset": {"max_slices": None}}},
        {
            "patches": {
                "per_epoch": 8,
                "dose_range": [0.1, 0.5],
                "zoom_range": None,
                "lesion_prob": 1,
                "air_weight": "$0.1",
            }
        },
    ],
)
def test_taken(change):
    check_run_values(GOOD | change)


def test_processes_share_the_patches():
    check_run_values(GOOD, processes=2)
    with pytest.raises(ConfigError, match="a batch in each of 3 processes"):
        check_run_values(GOOD, processes=3)


@pytest.mark.parametrize("path", ["exp#3", "/data#1/set", "/a::b"])
def test_paths_that_monai_would_change(path):
    with pytest.raises(ConfigError, match="Expected a path without") as caught:
        check_paths(["/fine", path])
    assert path in str(caught.value)


def test_expressions_are_no_paths():
    check_paths(["$@bundle_root + '#'", "@train#dataset", "%a.json#b", None, "/a:b/c"])
