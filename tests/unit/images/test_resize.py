import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from e2eft.images.resize import fitted_size, resize_depth, resize_normals, resize_rgb
from tests.corpora import coloured


@given(height=st.integers(1, 3000), width=st.integers(1, 3000), longest=st.integers(8, 2000))
def test_the_longest_side_is_as_asked_and_the_aspect_kept(
    height: int, width: int, longest: int
) -> None:
    made = fitted_size(height, width, longest)
    assert max(made) == longest and min(made) >= 1
    exact = min(height, width) * longest / max(height, width)
    assert abs(min(made) - exact) <= 0.5 or min(made) == 1
    assert fitted_size(height, width, None) == (height, width)


def test_an_image_is_resized_for_the_model_and_its_label_back() -> None:
    rgb = np.asarray(coloured(0, 60, 90))
    assert resize_rgb(rgb, (20, 30)).shape == (20, 30, 3)
    assert resize_rgb(rgb, (60, 90)) is rgb
    ramp = np.ascontiguousarray(np.broadcast_to(np.linspace(0, 1, 30, dtype=np.float32), (20, 30)))
    back = resize_depth(ramp, (60, 90))
    assert back.shape == (60, 90)
    # A ramp stays a ramp, pixel centres on pixel centres.
    wanted = np.interp((np.arange(90) + 0.5) / 3 - 0.5, np.arange(30), ramp[0])
    np.testing.assert_allclose(back[30], wanted, atol=1e-5)


def test_normals_are_unit_again_at_the_other_size() -> None:
    normals = np.zeros((4, 4, 3), np.float32)
    normals[:, :2], normals[:, 2:] = [1, 0, 0], [0, 0, -1]
    back = resize_normals(normals, (8, 8))
    np.testing.assert_allclose(np.linalg.norm(back, axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(back[0, 0], [1, 0, 0], atol=1e-6)
    assert 0.2 < back[0, 3, 0] < 1 and -1 < back[0, 3, 2] < -0.2
