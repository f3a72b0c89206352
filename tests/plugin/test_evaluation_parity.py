"""fastreid's ranking under the shims gives the recorded numbers of the published evaluators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

RECORDINGS = sorted((Path(__file__).parents[1] / "parity" / "evaluation").glob("eval_*.npz"))

pytestmark = pytest.mark.usefixtures("plugin")


def test_both_recordings_are_there() -> None:
    assert [path.stem for path in RECORDINGS] == ["eval_plain", "eval_ties"]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_ranking_equals_the_recording(path: Path) -> None:
    """Same code, so float64 APs agree to the last bits; the CMC is a mean of zeros and ones."""
    from fastreid.evaluation.rank import evaluate_rank

    z = np.load(path)
    cmc, precision, inverse = evaluate_rank(
        z["distmat"], z["q_pids"], z["g_pids"], z["q_camids"], z["g_camids"]
    )
    np.testing.assert_allclose(cmc, z["fr_cmc"], atol=1e-6)
    np.testing.assert_allclose(precision, z["fr_AP"], atol=1e-9)
    np.testing.assert_allclose(inverse, z["fr_INP"], atol=1e-9)
    assert np.mean(precision) == pytest.approx(float(z["fr_mAP"]), abs=1e-9)
    assert np.mean(inverse) == pytest.approx(float(z["fr_mINP"]), abs=1e-9)


def test_without_ties_it_is_the_map_of_cluster_contrast_and_spcl_too() -> None:
    """Their average precision is scikit-learn's, which differs from fastreid's in ties only."""
    from fastreid.evaluation.rank import evaluate_rank

    z = np.load(RECORDINGS[0])
    cmc, precision, _ = evaluate_rank(
        z["distmat"], z["q_pids"], z["g_pids"], z["q_camids"], z["g_camids"]
    )
    assert len(np.unique(z["distmat"])) == z["distmat"].size
    assert np.mean(precision) == pytest.approx(float(z["cc_mAP"]), abs=1e-6)
    assert np.mean(precision) == pytest.approx(float(z["spcl_mAP"]), abs=1e-6)
    np.testing.assert_allclose(cmc, z["cc_cmc_market"], atol=1e-6)


def test_a_wrong_camera_rule_would_be_noticed() -> None:
    """The recording holds matches of the query's own camera, which must not count."""
    from fastreid.evaluation.rank import evaluate_rank

    z = np.load(RECORDINGS[0])
    _, precision, _ = evaluate_rank(
        z["distmat"], z["q_pids"], z["g_pids"], z["q_camids"] + 100, z["g_camids"]
    )
    assert abs(np.mean(precision) - float(z["fr_mAP"])) > 1e-3
