"""Files of pose estimators: each public form, the choice among several people, clear faults."""

import json
import logging

import numpy as np
import pytest

from fastreid_cc.data.poses import read_poses, to_18, write_coco
from fastreid_cc.data.poses.keypoints import COCO, NAMES
from fastreid_cc.errors import WrongUse

RNG = np.random.default_rng(0)


def person(points: int, low: float = 0.5) -> np.ndarray:
    return np.column_stack(
        [RNG.uniform(0, 64, (points, 2)), RNG.uniform(low, 1, points)]
    ).astype(np.float32)  # fmt: skip


def flat(points: np.ndarray) -> list[float]:
    return points.ravel().tolist()


@pytest.mark.parametrize("count", [18, 25])
def test_openpose_is_a_folder_of_files(tmp_path, count):
    one, two = person(count), person(count)
    for stem, points in (("0001_c1", one), ("b.01", two)):
        told = {"version": 1.3, "people": [{"pose_keypoints_2d": flat(points)}]}
        (tmp_path / f"{stem}_keypoints.json").write_text(json.dumps(told))
    found = read_poses(tmp_path)
    assert set(found.of) == {"0001_c1", "b.01"}
    assert np.allclose(found.of["b.01"], to_18(two))
    paths = ["x/0001_c1.jpg", "x/none.jpg"]
    assert list(found.by_path(paths)) == paths[:1]


def test_alphapose_is_a_list_or_looks_like_openpose(tmp_path):
    points, file = person(17), tmp_path / "alphapose-results.json"
    row = {"image_id": "d/a.jpg", "category_id": 1, "keypoints": flat(points), "score": 2.9}
    file.write_text(json.dumps([row]))
    assert np.allclose(read_poses(file).of["a"], to_18(points))
    points = person(18)
    for people, name in (("people", "pose_keypoints_2d"), ("bodies", "joints")):
        file.write_text(json.dumps({"a.jpg": {"version": "", people: [{name: flat(points)}]}}))
        assert np.allclose(read_poses(file).of["a"], points)


def test_coco_names_its_points_and_its_hidden_ones_are_not_seen(tmp_path):
    points = person(17)
    points[:, 2] = 2
    points[COCO.index("nose")] = 5, 6, 1
    told = {
        "images": [{"id": 7, "file_name": "train/a.jpg"}],
        "annotations": [
            {"image_id": 7, "category_id": 1, "keypoints": flat(points)},
            {"image_id": 7},
        ],
        "categories": [{"id": 1, "keypoints": list(COCO)}],
    }
    file = tmp_path / "coco.json"
    file.write_text(json.dumps(told))
    found = read_poses(file).of["a"]
    assert found[0].tolist() == [5, 6, 0] and (found[1:, 2] == 1).all()
    order = RNG.permutation(17)
    told["categories"][0]["keypoints"] = [COCO[i] for i in order]
    told["annotations"][0]["keypoints"] = flat(points[order])
    file.write_text(json.dumps(told))
    assert (read_poses(file).of["a"] == found).all()


def test_what_write_coco_writes_is_read_again(tmp_path):
    poses = {f"{i}": person(18) for i in range(3)}
    poses["1"][4] = 30.25, 12.5, 0
    write_coco(tmp_path / "p.json", [(f"{name}.png", p) for name, p in poses.items()])
    found = read_poses(tmp_path / "p.json").of
    for name, points in poses.items():
        assert np.allclose(found[name][:, :2], points[:, :2], atol=0.006)
        assert ((found[name][:, 2] == 1) == (points[:, 2] > 0)).all()
    assert found["1"][4].tolist() == [30.25, 12.5, 0]


def test_pose_transfer_csv_puts_y_first_and_minus_1_is_missing(tmp_path):
    y, x = list(range(18)), list(range(20, 38))
    y[3] = x[3] = -1
    file = tmp_path / "market-annotation-train.csv"
    file.write_text(f"name:keypoints_y:keypoints_x\na.jpg: {y}: {x}\n")
    found = read_poses(file).of["a"]
    assert found[2].tolist() == [22, 2, 1] and found[3, 2] == 0 and found[:, 2].sum() == 17


def test_of_several_people_the_best_seen_is_taken_the_first_if_equal(tmp_path, caplog):
    faint, best = person(18), person(18)
    faint[:, 2], best[:, 2] = 0.5, 0.75
    people = [{"pose_keypoints_2d": flat(p)} for p in (faint, best, best + (1, 1, 0))]
    (tmp_path / "a_keypoints.json").write_text(json.dumps({"people": people}))
    (tmp_path / "b_keypoints.json").write_text(json.dumps({"people": []}))
    with caplog.at_level(logging.WARNING, "fastreid.cc.poses"):
        found = read_poses(tmp_path)
    assert np.allclose(found.of["a"], best)
    assert (found.crowded, found.without) == (("a",), ("b",))
    assert "1 of 2 images show nobody" in caplog.text and "several people" in caplog.text


def test_points_of_little_confidence_are_not_seen(tmp_path):
    points, file = person(17), tmp_path / "a.json"
    points[5:, 2] = 0.05
    points[0, 2] = 3.0  # AlphaPose's older confidences go beyond 1
    file.write_text(json.dumps([{"image_id": "a.jpg", "keypoints": flat(points)}]))
    found = read_poses(file).of["a"]
    assert (found[:, 2] > 0).sum() == 5 and found[0, 2] == 1
    assert (read_poses(file, least=0.01).of["a"][:, 2] > 0).all()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("gone.json", None, "gone.json: no such file or folder"),
        ("a.json", "[{", "a.json: Expecting"),
        ("a.json", '[{"image_id": "a"}]', "no known form of key points: KeyError 'keypoints'"),
        ("a.json", '[{"image_id": "a", "keypoints": [1, 2, 3]}]', "1 key points; known are 17"),
        ("a.json", '[{"image_id": "a", "keypoints": [1, 2]}]', "2 numbers are no row of x, y"),
        ("a.json", "[]", "nobody was found on 0 images"),
        ("a.json", '{"a.jpg": {"people": []}}', "nobody was found on 1 images"),
        ("a.json", "3", "no known form"),
        ("a.csv", "name:keypoints_y:keypoints_x\na: [1]: [2]\n", "1 x and 1 y are not 18"),
        ("a.csv", "image,x\na,1\n", "no known form of key points: KeyError 'keypoints_y'"),
    ],
)
def test_faults_name_the_file_and_what_was_found(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(WrongUse) as caught:
        read_poses(tmp_path / name)
    assert message in str(caught.value) and name in str(caught.value)


def test_a_folder_without_openpose_files_is_a_fault(tmp_path):
    with pytest.raises(WrongUse, match="holds no <image>_keypoints.json"):
        read_poses(tmp_path)


def test_names_are_18_and_differ():
    assert len(set(NAMES)) == 18 and set(COCO) | {"neck"} == set(NAMES)
