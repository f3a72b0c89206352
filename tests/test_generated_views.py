"""A folder of generated views: what is found and shown, what stands for a missing one."""

import random
from pathlib import Path

import pytest
from PIL import Image

from fastreid_cc.data.generated_views import ViewFolder
from fastreid_cc.errors import BadConfig

REAL = Image.new("RGB", (8, 16), (0, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Views 1, 2, 4 of a, 2 of b, of brightness 10 · view; of c none."""
    (tmp_path / "deep").mkdir()
    for stem, view in (("a", 1), ("a", 2), ("deep/a", 4), ("b", 2), ("other", 3)):
        Image.new("RGB", (4, 4), (10 * view,) * 3).save(tmp_path / f"{stem}_to_{view}.png")
    (tmp_path / "a_to_x.png").write_bytes(b"no view")
    return tmp_path


PATHS = ["/x/a.jpg", "/x/b.jpg", "/x/c.jpg"]


def shades(views: ViewFolder, path: str, count: int = 400) -> dict[int, float]:
    random.seed(0)
    seen = [views(REAL, path, 0).getpixel((1, 1))[0] for _ in range(count)]
    return {shade: seen.count(shade) / count for shade in sorted(set(seen))}


def test_views_are_counted_and_missing_ones_are_the_image(folder):
    views = ViewFolder(PATHS, folder=str(folder), show=1.0)
    assert (views.views, views.num_missing, views.num_without) == ([1, 2, 4], 5, 1)
    assert views.view(REAL, PATHS[0], 2).getpixel((0, 0)) == (40, 40, 40)
    assert views.view(REAL, PATHS[0], 2).size == REAL.size
    assert views.view(REAL, PATHS[1], 0) is REAL and views.path_of(PATHS[1], 0) is None
    assert shades(views, PATHS[2]) == {0: 1.0}


def test_each_view_is_shown_as_often_and_the_image_else(folder):
    found = shades(ViewFolder(PATHS, folder=str(folder), show=1.0), PATHS[0])
    assert set(found) == {10, 20, 40} and all(abs(share - 1 / 3) < 0.08 for share in found.values())
    half = shades(ViewFolder(PATHS, folder=str(folder), show=0.5), PATHS[0])
    assert abs(half[0] - 0.5) < 0.08 and abs(half[20] - 1 / 6) < 0.08
    only = shades(ViewFolder(PATHS, folder=str(folder), show=1.0), PATHS[1])
    assert abs(only[20] - 1 / 3) < 0.08 and abs(only[0] - 2 / 3) < 0.08
    assert shades(ViewFolder(PATHS, folder=str(folder), show=0.0), PATHS[0]) == {0: 1.0}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({}, "CC.POSES.FOLDER='' is no folder"),
        ({"folder": "/nowhere"}, "'/nowhere' is no folder"),
        ({"show": 1.5}, "CC.POSES.SHOW=1.5"),
        ({"fuse": "median"}, "CC.POSES.FUSE='median'"),
    ],
)
def test_faults_name_the_key(arguments, message):
    with pytest.raises(ValueError, match=message):
        ViewFolder(PATHS, **arguments)


def test_a_folder_of_other_images_and_a_view_twice_are_faults(folder):
    with pytest.raises(BadConfig, match=r"no generated view of a training image; .*z_to_1\.png"):
        ViewFolder(["/x/z.jpg"], folder=str(folder))
    Image.new("RGB", (4, 4)).save(folder / "deep" / "a_to_2.jpg")
    with pytest.raises(BadConfig, match="view 2 of a twice"):
        ViewFolder(PATHS, folder=str(folder))
