"""The distance of a walk from training, its bounds by length, and the file that they are kept in."""

import io
import zipfile

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from scoliojax.errors import RunError
from scoliojax.scores import reference
from scoliojax.scores.reference import BEYOND, Reference, fit, usual_distance
from tests.conftest import damage


def walks(count: int, seed: int, noise: float = 1.0) -> np.ndarray:
    """Embeddings `[n, 3, 5]` of one distribution, whose channels are correlated and of unequal size."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(3, 5, 5)) * [1e-3, 0.1, 1.0, 10.0, 1e3]
    return (np.einsum("npc,pcd->npd", rng.normal(size=(count, 3, 5)) * noise, mixing) + 50.0).astype(np.float32)


def fitted(**changes) -> Reference:
    found = fit(walks(80, 0), {15: walks(40, 1, 1.4), 30: walks(40, 2, 1.2), 60: walks(120, 3)}, "abc", synthetic=True)
    return Reference(**vars(found) | changes)


def test_the_distance_is_mahalanobis_with_ledoit_and_wolfs_precision():
    training, new = walks(80, 0), walks(7, 5)
    truth = np.zeros(7)
    for strip in range(3):
        model = LedoitWolf().fit(training[:, strip].astype(np.float64))
        truth += model.mahalanobis(new[:, strip].astype(np.float64)) / 5 / 3
    np.testing.assert_allclose(fitted().distance(new), truth, rtol=1e-5)


def test_the_unit_of_the_embeddings_does_not_matter():
    small = fit(walks(80, 0) * np.float32(1e-12), {60: walks(40, 1) * np.float32(1e-12)}, "abc")
    np.testing.assert_allclose(small.distance(walks(5, 6) * np.float32(1e-12)), fitted().distance(walks(5, 6)), rtol=1e-4)


def test_where_a_strip_gives_all_walks_one_embedding_there_is_no_distance():
    same = walks(20, 0)
    same[:, 1] = 7.0
    with pytest.raises(ValueError, match="the same embedding"):
        fit(same, {60: walks(20, 1)}, "abc")


def test_a_walk_is_judged_by_the_bounds_of_its_length():
    kept = fitted()
    assert kept.usual[0] > kept.usual[1] > kept.usual[2]
    for frames, place in ((1, 0), (15, 0), (30, 1), (60, 2), (900, 2)):
        assert kept.usual_at(frames) == pytest.approx(kept.usual[place])
    part = np.log2(21 / 15)
    assert kept.usual_at(21) == pytest.approx((1 - part) * kept.usual[0] + part * kept.usual[1])
    usual = kept.usual[1]
    for distance, unlike, beyond in (
        (usual, False, False), (usual * 1.001, True, False), (usual * BEYOND * 1.001, True, True), (np.nan, True, True),
        (np.inf, True, True),
    ):  # fmt: skip
        judged = kept.judge(distance, 30)
        assert (judged.unlike, judged.beyond, judged.frames) == (unlike, beyond, 30)
        assert (judged.usual, judged.bound) == pytest.approx((usual, usual * BEYOND))


@pytest.mark.parametrize("count", [12, 66, 99, 250])
def test_one_walk_of_a_hundred_is_beyond_what_is_usual(count):
    rng = np.random.default_rng(count)
    trials = 4000
    beyond = sum(rng.lognormal(0.0, 0.3) > usual_distance(rng.lognormal(0.0, 0.3, count)) for _ in range(trials))
    assert 0.002 < beyond / trials < 0.017


def test_few_validation_walks_are_named():
    assert any("40 at 15 frames, 40 at 30 frames" in note and "needs 99" in note for note in fitted().notes)
    assert not fitted(walks=np.array([99, 120, 300])).notes
    (mixed,) = fitted(walks=np.array([120, 99, 50])).notes
    assert "(50 at 60 frames; " in mixed


@pytest.mark.parametrize(
    ("frames", "lengths"),
    [
        ([60] * 10, [15, 30, 60]), ([300] * 10, [15, 30, 60, 120, 300]), ([8] * 10, [8]), ([15] * 3, [15]),
        ([20, 40, 70, 100, 400], [15, 30, 70]), ([300] * 5 + [20] * 5, [15, 30, 60, 120, 300]),
    ],
)  # fmt: skip
def test_the_lengths_go_up_to_what_half_of_the_walks_have(frames, lengths):
    assert reference.cut_lengths(np.array(frames)) == lengths


def test_what_is_stored_is_read_again_for_the_same_network_only(tmp_path):
    path = reference.reference_file(tmp_path, 7)
    assert reference.read(path, "abc") is None
    kept = fitted()
    reference.write(path, kept)
    again = reference.read(path, "abc")
    for name, value in vars(kept).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert (again.network, again.synthetic, again.sequences) == ("abc", True, 80)
    assert reference.read(path, "another") is None
    assert [one.name for one in path.parent.iterdir()] == ["step-000007.npz"]


def without(name):
    return lambda given: {key: value for key, value in given.items() if key != name}


def packed(content, save=np.savez, **options) -> bytes:
    file = io.BytesIO()
    save(file, **content, **options)
    return file.getvalue()


def bomb(given) -> bytes:
    """An array that claims to be far larger than the file."""
    whole, file = zipfile.ZipFile(io.BytesIO(packed(given))), io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in whole.namelist():
            archive.writestr(
                name, whole.read(name).replace(b"(3, 5, 5)", b"(3, 10000000, 5)").replace(b"        \n", b" \n", 1)
            )
    return file.getvalue()


DAMAGED = {
    "empty": lambda given: b"",
    "a text": lambda given: b"not a file of arrays",
    "half": lambda given: packed(given)[: len(packed(given)) // 2],
    "one array": lambda given: (lambda file: (np.save(file, given["mean"]), file.getvalue())[1])(io.BytesIO()),
    "no factor": lambda given: packed(without("factor")(given)),
    "one more": lambda given: packed(given | {"more": np.zeros(3)}),
    "objects": lambda given: packed(given | {"mean": np.array([["a", None]], dtype=object)}),
    "compressed": lambda given: packed(given, np.savez_compressed),
    "larger than it is": bomb,
    "another shape": lambda given: packed(given | {"factor": given["factor"][:, :2]}),
    "another type": lambda given: packed(given | {"mean": given["mean"].astype(np.float64)}),
    "not finite": lambda given: packed(given | {"factor": given["factor"] * np.float32(np.nan)}),
    "lengths that fall": lambda given: packed(given | {"lengths": given["lengths"][::-1]}),
    "nothing usual": lambda given: packed(given | {"usual": -given["usual"]}),
    "no walks": lambda given: packed(given | {name: given[name][:0] for name in ("lengths", "usual", "walks")}),
    "a number as the network": lambda given: packed(given | {"network": np.array(3)}),
}  # fmt: skip


@pytest.mark.parametrize("state", DAMAGED)
def test_a_damaged_file_is_one_line_with_the_remedy(state, tmp_path):
    path = reference.reference_file(tmp_path, 7)
    path.parent.mkdir()
    path.write_bytes(DAMAGED[state](vars(fitted())))
    with pytest.raises(RunError, match=r"step-000007.npz cannot be read \(.*\); delete it, then evaluate again") as refused:
        reference.read(path, "abc")
    assert len(str(refused.value)) < 600


def test_what_is_no_file_is_refused_and_any_damage_is_found_or_harmless(tmp_path):
    path = reference.reference_file(tmp_path, 7)
    path.mkdir(parents=True)
    with pytest.raises(RunError, match="delete it"):
        reference.read(path, "abc")
    path.rmdir()
    rng = np.random.default_rng(0)
    for _ in range(100):
        reference.write(path, fitted())
        damage(rng, path)
        try:
            found = reference.read(path, "abc")
        except RunError as error:
            assert "; delete it, then evaluate again" in str(error)
        else:
            assert found is None or found.distance(walks(2, 5)).shape == (2,)


def test_embeddings_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 3, 4\], not \[n, 3, 5\]"):
        fitted().distance(np.zeros((2, 3, 4), np.float32))
