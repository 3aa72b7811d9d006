import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ct_cncl.transforms.anatomy.regions import padding_as_air
from ct_cncl.transforms.patches.network_units import HUToNetwork, HUToNetworkd, NetworkToHU, NetworkToHUd

AFFINE = torch.diag(torch.tensor([-0.5, 0.5, 2.0, 1.0], dtype=torch.float64))


def test_there_and_back_keeps_hu_affine_and_other_keys():
    hu = torch.arange(-1499, 20001, dtype=torch.float32)[None, :, None, None]
    data = {"image": MetaTensor(hu, affine=AFFINE), "label": MetaTensor(hu + 1, affine=AFFINE), "name": "x"}
    units = HUToNetworkd(("image", "label"))(data)
    assert torch.equal(units["image"].as_tensor(), (hu + 1024) / 4096)
    back = NetworkToHUd(("image",))(units)
    assert torch.equal(back["image"].as_tensor(), hu)
    assert torch.equal(back["label"].as_tensor(), (hu + 1 + 1024) / 4096)
    assert torch.equal(back["image"].affine, AFFINE)
    assert back["name"] == "x"
    assert torch.equal(data["image"].as_tensor(), hu)


def test_array_versions():
    hu = torch.tensor([[[-1024.0, 1024.0]]])
    assert HUToNetwork()(hu).tolist() == [[[0.0, 0.5]]]
    assert torch.equal(NetworkToHU()(HUToNetwork()(hu)), hu)
    assert HUToNetwork()(hu.short()).dtype == torch.float32


def test_networks_see_padding_as_air():
    """-3024 beside tissue is an edge that no tissue has: a ring of wrong pixels came out along it."""
    hu = torch.tensor([[[-3024.0, -2000.0, -1500.0, -1499.0, -1024.0, 40.0, 3071.0]]])
    wanted = torch.tensor([[[-1024.0, -1024.0, -1024.0, -1499.0, -1024.0, 40.0, 3071.0]]])
    assert torch.equal(NetworkToHU()(HUToNetwork()(hu)), wanted)
    assert hu[0, 0, 0] == -3024


@pytest.mark.parametrize("kind", [torch.tensor, np.array], ids=["tensor", "array"])
def test_padding_beside_nan_is_air_too_and_nothing_is_fine(kind):
    """A quick look at the least value must not be answered by a NaN, nor fail for no value at all."""
    values = np.asarray(padding_as_air(kind([float("nan"), -3024.0, 40.0])))
    assert np.isnan(values[0])
    assert values[1:].tolist() == [-1024.0, 40.0]
    assert len(padding_as_air(kind([]))) == 0
