"""The bundle's own list of transforms over tiny pairs, and what it drew."""

import json
from functools import cache
from types import SimpleNamespace

import numpy as np
from monai.bundle import ConfigParser

from ct_cncl.pipeline.workflow.run import config_file
from ct_cncl.transforms import PatchPairs


@cache
def bundle_config():
    return json.loads(config_file("train.json").read_text())


def preprocessing(size=8, *, extra=(), without=(), **patches):
    """``train#preprocessing`` of train.json; ``patches`` are keys of its group of that name.

    Args:
        extra: further transforms, at the end.
        without: class names to leave out.
    """
    config = json.loads(json.dumps(bundle_config()))
    parser = ConfigParser({"patches": config["patches"] | {"size": size} | patches, "train": config["train"]})
    compose = parser.get_parsed_content("train#preprocessing")
    kept = [one for one in compose.transforms if type(one).__name__ not in without]
    compose.transforms = [*kept, *extra]
    return compose


def pairs(data, size=8, *, seed=5, per_epoch=40, extra=(), without=(), patches=(), **options):
    """A ``PatchPairs`` with the bundle's transforms."""
    transform = preprocessing(size, extra=extra, without=without, **dict(patches))
    return PatchPairs(data, transform, **{"patches_per_epoch": per_epoch, "seed": seed} | options)


def one_of(dataset, name):
    """The array transform inside the dictionary transform of this class."""
    return next(one for one in dataset.transform.transforms if type(one).__name__ == name).transform


def drawn(dataset, number):
    """Sample ``number``, and all that was drawn for it."""
    item = dataset[number]
    x, y = one_of(dataset, "RandPatchd").place
    turn = one_of(dataset, "RandOrientationd").orientation
    dose, size = one_of(dataset, "RandLowDosed"), one_of(dataset, "RandPixelSized")
    return SimpleNamespace(
        item=item,
        x=x,
        y=y,
        side=size.side,
        turn=turn,
        slice_number=dataset.slice_number(number),
        dose=None if dose is None else dose.drawn,
        sharpness=one_of(dataset, "RandSharpnessd").sharpness,
    )


def turned_back(hu, place):
    """The patch (C, H, W) in the orientation of the volume."""
    hu = hu.swapaxes(1, 2) if place.turn.transpose else hu  # undone in reverse order: transposed last
    hu = np.flip(hu, 1) if place.turn.flip_x else hu
    return np.flip(hu, 2) if place.turn.flip_y else hu
