"""What `print` and a notebook say of a result."""

import base64
import io
import re

import jax
import numpy as np
from networks import images, relu
from PIL import Image

import jaxcam


def explained(x=None):
    return jaxcam.cam(relu(), images(2) if x is None else x, jaxcam.methods.grad_cam_pp(), 1)


def test_a_result_is_told_in_a_few_lines():
    result = explained()
    lines = str(result).splitlines()
    assert len(lines) <= 16
    assert max(map(len, lines)) <= 100
    told = {line[2:].split("  ")[0]: line for line in lines[1:]}
    assert "float32[2,5,4]" in told["map"]
    assert f"{np.asarray(result.map).max():.3g}" in told["map"]
    assert result.diagnostics.report.engine in told["engine"]
    assert "exact" in told["engine"]
    assert told["target"].split() == ["target", "1"]
    assert f"{float(result.diagnostics.poles.smallest_r[1]):.3g}" in told["smallest r"]
    assert "blank" not in told
    said = str(result.diagnostics).splitlines()
    assert said[1:] == [line for line in lines if line in said[1:]]


def test_what_is_wrong_has_a_line():
    result = explained()
    wrong = result.diagnostics._replace(
        blank=np.array([True, False]), finite=np.array([True, True])
    )
    assert re.search(r"blank +True, False", str(wrong))
    assert "finite" not in str(wrong)
    path = wrong._replace(total=np.float32(3.5), completeness=np.float32(0.25))
    assert re.search(r"total +3.5\n +completeness +0.25", str(path))


def test_inside_jit_shapes_are_told_and_nothing_is_moved():
    told = []

    @jax.jit
    def run(x):
        result = explained(x)
        told.append(str(result))
        return result.map

    run(images(2))
    assert re.search(r"map +float32\[2,5,4\]$", told[0], re.MULTILINE)


def test_other_things_in_the_places_of_arrays():
    result = explained()
    for other in (None, 0, "leaf", jax.ShapeDtypeStruct((2,), "int32")):
        assert str(jax.tree.map(lambda _, other=other: other, result)).startswith("CAM")


def test_a_notebook_shows_the_maps():
    result = explained()
    page = result._repr_html_()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 2
    assert "Diagnostics" not in page
    assert "CAM" in page
    for code, map in zip(pictures, np.asarray(result.map), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(code))))
        assert pixels.shape == (*map.shape, 3)
        assert (pixels[map == map.max()] == 255).all()
        assert (pixels[map == 0] == 0).all()
        brightness = pixels.astype(int).sum(-1).ravel()
        assert (np.diff(brightness[np.argsort(map.ravel())]) >= 0).all()


def test_results_stay_tuples():
    result = explained()
    assert result._fields[0] == "map"
    assert len(jax.tree.leaves(result)) > 5
    assert result._replace(map=None).map is None
