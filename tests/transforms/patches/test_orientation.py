import numpy as np
import torch

from ct_cncl.transforms.patches.orientation import Orientation, RandOrientation, RandOrientationd, oriented


def test_the_eight_orientations_are_equally_likely():
    transform = RandOrientation().set_random_state(seed=0)
    image = torch.tensor([[[1, 2], [3, 4]]])
    seen = [tuple(transform(image).flatten().tolist()) for _ in range(1600)]
    assert len(set(seen)) == 8
    assert min(seen.count(one) for one in set(seen)) > 150


def test_flipped_first_transposed_last():
    image = np.arange(12).reshape(3, 4)
    for bits in range(8):
        turn = Orientation(*(bool(bits & bit) for bit in (1, 2, 4)))
        expected = image[::-1] if turn.flip_x else image
        expected = expected[:, ::-1] if turn.flip_y else expected
        expected = expected.T if turn.transpose else expected
        np.testing.assert_array_equal(oriented(torch.from_numpy(image), turn).numpy(), expected)


def test_all_keys_of_an_item_are_turned_alike_and_each_item_of_a_batch_its_own_way():
    image = torch.rand(16, 2, 5, 5)
    out = RandOrientationd(["a", "b"]).set_random_state(seed=0)({"a": image, "b": image + 1})
    assert torch.equal(out["b"], out["a"] + 1)
    alone = RandOrientationd("a").set_random_state(seed=0)
    for number in range(16):
        assert torch.equal(alone({"a": image[number]})["a"], out["a"][number])
