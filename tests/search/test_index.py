"""index, queries, measures, files: against brute force, scikit-learn, hand-computed cases and the size of files."""

import hashlib
import json
import re
import time
import timeit
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from recbook.search import measures, queries
from recbook.search.files import INDEX_FORMAT, load_index, save_index
from recbook.search.index import (
    ProductIndex,
    SearchParameters,
    brute_force,
    build_index,
    catalogue_fingerprint,
    search_index,
    vectors_of,
)

faiss = pytest.importorskip("faiss")
EVERY_KIND = ["Flat", "SQ8", "PQ8", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ8", "HNSW16", "IVF16,PQ8,RFlat", "PQ8,RFlat"]


def unit_rows(n: int, d: int, seed: int, groups: int = 40) -> np.ndarray:
    """Vectors that spread as products do: around centres, in few directions."""
    rng = np.random.default_rng(seed)
    centres, directions = rng.standard_normal((groups, d)), rng.standard_normal((6, d))
    rows = centres[rng.integers(groups, size=n)] + 0.5 * rng.standard_normal((n, 6)) @ directions
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


VECTORS = unit_rows(2000, 32, seed=0)
CODES = np.array([f"P{i:04d}" for i in range(len(VECTORS))])
ASKED = unit_rows(50, 32, seed=1)


@pytest.fixture(scope="module")
def indexes() -> dict[str, ProductIndex]:
    return {factory: build_index(CODES, VECTORS, factory) for factory in EVERY_KIND}


def true_codes(allowed: np.ndarray | None = None, k: int = 10, asked: np.ndarray = ASKED) -> np.ndarray:
    """The exact answers, by sorting every cosine in float64."""
    rows = np.arange(len(CODES)) if allowed is None else np.flatnonzero(np.isin(CODES, allowed))
    cosines = asked.astype(float) @ VECTORS[rows].astype(float).T
    return CODES[rows[np.argsort(-cosines, axis=1, kind="stable")[:, :k]]]


# Brute force


def test_brute_force_by_hand():
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    scores, rows = brute_force(vectors, np.array([[1, 0], [0, 2]], np.float32), k=2)
    assert rows.tolist() == [[0, 2], [1, 2]]
    np.testing.assert_allclose(scores, [[1, 0.6], [2, 1.6]], rtol=1e-6)


def test_brute_force_equals_scikit_learn_in_any_block():
    expected = NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(VECTORS).kneighbors(ASKED)[1]
    for block in (1, 7, 1000):
        assert np.array_equal(brute_force(VECTORS, ASKED, 10, block)[1], expected)


def test_brute_force_orders_ties_by_row_and_asks_for_no_more_than_there_are():
    vectors = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    assert brute_force(vectors, vectors[[1]], k=9)[1].tolist() == [[1, 2, 0]]


# What each index finds


def test_flat_equals_brute_force(indexes):
    hits = search_index(indexes["Flat"], ASKED, 10)
    assert np.array_equal(hits.codes, true_codes())
    np.testing.assert_allclose(hits.scores, brute_force(VECTORS, ASKED, 10)[0], atol=1e-6)


def test_ivf_that_visits_every_cell_equals_flat(indexes):
    assert np.array_equal(
        search_index(indexes["IVF16,Flat"], ASKED, parameters=SearchParameters(nprobe=16)).codes, true_codes()
    )


def test_more_cells_find_more_and_one_cell_misses_some(indexes):
    found = [
        measures.index_recall(
            search_index(indexes["IVF16,Flat"], ASKED, parameters=SearchParameters(nprobe=n)).codes, true_codes()
        )
        for n in (1, 2, 4, 16)
    ]
    assert found == sorted(found) and 0.3 < found[0] < 0.95 and found[-1] == 1


@pytest.mark.parametrize(
    ("factory", "low", "high"),
    [("HNSW16", 0.97, 1), ("SQ8", 0.9, 1), ("PQ8", 0.2, 0.8), ("IVF16,PQ8,RFlat", 0.8, 1), ("PQ8,RFlat", 0.8, 1)],
)
def test_recall_of_the_approximate_indexes_is_within_measured_bounds(indexes, factory, low, high):
    assert low <= measures.index_recall(search_index(indexes[factory], ASKED).codes, true_codes()) <= high


def test_refining_scores_exactly(indexes):
    hits = search_index(indexes["PQ8,RFlat"], ASKED, 5, parameters=SearchParameters(refine=400))
    assert np.array_equal(hits.codes, true_codes(k=5))
    np.testing.assert_allclose(hits.scores, brute_force(VECTORS, ASKED, 5)[0], atol=1e-5)


@pytest.mark.parametrize("factory", EVERY_KIND)
def test_every_index_answers_min_of_k_and_products_best_first(indexes, factory):
    starved = SearchParameters(nprobe=1, ef=1, refine=1)
    hits = search_index(indexes[factory], ASKED[:3], 5000, parameters=starved)
    assert hits.codes.shape == (3, len(CODES))
    assert all(len(set(row)) == len(CODES) for row in hits.codes)
    assert (np.diff(hits.scores, axis=1) <= 1e-6).all()


# Filters


@pytest.mark.parametrize("factory", EVERY_KIND)
@pytest.mark.parametrize("size", [1, 3, 40, 1500])
@pytest.mark.parametrize("scan_below", [0, 5000])
def test_a_filter_lets_only_the_allowed_through_and_finds_k_of_them(indexes, factory, size, scan_below):
    allowed = np.random.default_rng(size).choice(CODES, size, replace=False)
    hits = search_index(indexes[factory], ASKED, 10, allowed, SearchParameters(scan_below=scan_below))
    assert hits.codes.shape == (len(ASKED), min(10, size))
    assert np.isin(hits.codes, allowed).all()
    assert all(len(set(row)) == len(row) for row in hits.codes)
    if factory == "Flat" or ("Flat" in factory and scan_below) or (factory == "HNSW16" and scan_below):
        assert np.array_equal(hits.codes, true_codes(allowed))


@settings(max_examples=30, deadline=None)
@given(allowed=st.lists(st.sampled_from(list(CODES[:60])), max_size=70), k=st.integers(1, 80))
def test_filtered_flat_equals_brute_force_on_the_filtered_set(allowed, k):
    index = _small_index()
    hits = search_index(index, ASKED[:4], k, among=allowed)
    rows = np.array(sorted({int(code[1:]) for code in allowed}), dtype=int)
    if not len(rows):
        assert hits.codes.shape == (4, 0)
        return
    expected = np.argsort(-(ASKED[:4].astype(float) @ VECTORS[rows].astype(float).T), axis=1, kind="stable")[:, :k]
    assert np.array_equal(hits.codes, CODES[rows[expected]])


def _small_index(cache={}) -> ProductIndex:  # noqa: B006  (built once for all examples)
    return cache.setdefault("index", build_index(CODES[:60], VECTORS[:60]))


def test_an_empty_filter_and_a_filter_of_unknown_products_give_no_columns(indexes):
    for nothing in ([], ["no such product"], pd.Index([])):
        assert search_index(indexes["HNSW16"], ASKED, 3, among=nothing).codes.shape == (len(ASKED), 0)


# The same answers each time


@pytest.mark.parametrize("factory", EVERY_KIND)
def test_two_builds_and_any_number_of_threads_give_the_same_answers(indexes, factory):
    again = build_index(CODES, VECTORS, factory)
    before = faiss.omp_get_max_threads()
    try:
        answers = []
        for threads, index in ((1, indexes[factory]), (2, again), (1, again)):
            faiss.omp_set_num_threads(threads)
            answers.append(search_index(index, ASKED, 10).codes)
    finally:
        faiss.omp_set_num_threads(before)
    assert np.array_equal(answers[0], answers[1]) and np.array_equal(answers[0], answers[2])


def test_build_leaves_the_threads_as_they_were():
    before = faiss.omp_get_max_threads()
    build_index(CODES[:10], VECTORS[:10], threads=1)
    assert faiss.omp_get_max_threads() == before


def test_one_query_gives_what_it_gives_among_many(indexes):
    for factory in EVERY_KIND:
        alone = np.vstack([search_index(indexes[factory], query, 10).codes for query in ASKED[:5]])
        assert np.array_equal(alone, search_index(indexes[factory], ASKED, 10).codes[:5])


def test_equal_vectors_are_answered_in_catalogue_order():
    twice = np.vstack([VECTORS[:30], VECTORS[:30]])
    index = build_index([f"{i:02d}" for i in range(60)], twice)
    assert search_index(index, VECTORS[[4]], 2).codes.tolist() == [["04", "34"]]


# Bad input


@pytest.mark.parametrize(
    ("codes", "vectors", "message"),
    [
        (["a", "b", "a"], VECTORS[:3], "'a' stands for more than one"),
        (["a", "b"], VECTORS[:3], "2 codes need a vector each"),
        ([], VECTORS[:0], "0 codes need a vector each"),
        (["a", "b", "c"], 2 * VECTORS[:3], "'a' (row 0, length 2"),
        (["a", "b", "c"], np.vstack([VECTORS[:1], np.full((2, 32), np.nan)]), "2 vectors are not of length 1"),
        (["a", "b", "c"], np.vstack([VECTORS[:2], np.zeros((1, 32))]), "'c' (row 2, length 0)"),
        (["a"], VECTORS[0], "(n, d)"),
        ([10002, 10080], VECTORS[:2], "2 codes are not strings, the first 10002"),
        (["a", float("nan")], VECTORS[:2], "1 codes are not strings, the first nan"),
    ],
)
def test_a_bad_catalogue_is_refused_with_the_first_offender(codes, vectors, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        build_index(codes, vectors)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVF99999,Flat", "99999 centroids"),
        ("PQ8", "256 centroids"),
        ("Flt", "does not know"),
        ("PQ7", "32 dimensions"),
    ],
)
def test_an_impossible_factory_string_is_refused(factory, message):
    with pytest.raises(ValueError, match=message):
        build_index(CODES[:200], VECTORS[:200], factory)


@pytest.mark.parametrize(
    ("asked", "k", "message"),
    [
        (ASKED[:, :5], 3, "queries must be (q, 32)"),
        (ASKED[None], 3, "queries must be (q, 32)"),
        (np.full((1, 32), np.nan), 3, "query 0 is zero or holds"),
        (np.vstack([ASKED[:2], np.zeros((1, 32))]), 3, "query 2 is zero or holds"),
        (np.full((1, 32), np.inf), 3, "query 0 is zero or holds"),
        (ASKED, 0, "k is 0"),
        (ASKED, -2, "k is -2"),
    ],
)
def test_bad_questions_are_refused(indexes, asked, k, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        search_index(indexes["Flat"], asked, k)


@pytest.mark.parametrize(
    "wrong",
    ["P0001", pd.Series([True] * len(CODES)), pd.DataFrame({"price": 1.0}, index=CODES), [1, 2]],
    ids=["one string", "a mask", "a table", "numbers"],
)
def test_what_is_no_list_of_codes_is_refused_and_not_answered_with_nothing(indexes, wrong):
    with pytest.raises(TypeError, match="among must"):
        search_index(indexes["Flat"], ASKED, 3, among=wrong)
    with pytest.raises(TypeError, match="among must"):
        queries.by_history(indexes["Flat"], ["P0001"], among=wrong)
    with pytest.raises(TypeError, match="bought must"):
        queries.by_history(indexes["Flat"], wrong)


def test_one_text_is_refused_and_not_read_letter_by_letter(indexes):
    with pytest.raises(TypeError, match="not one string"):
        queries.by_text(indexes["Flat"], "two", lambda texts: ASKED[: len(texts)])


def test_the_length_of_a_query_does_not_matter(indexes):
    one, seven = (search_index(indexes["Flat"], ASKED * length) for length in (1, 7))
    assert np.array_equal(one.codes, seven.codes)
    np.testing.assert_allclose(one.scores, seven.scores, atol=1e-6)


# Queries made of products and texts


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW16", "IVF16,PQ8,RFlat"])
def test_vectors_of_products_come_back_exactly(indexes, factory):
    np.testing.assert_array_equal(vectors_of(indexes[factory], ["P0007", "P1999"]), VECTORS[[7, 1999]])


def test_vectors_of_an_unknown_product_names_it(indexes):
    with pytest.raises(KeyError, match="'nobody'"):
        vectors_of(indexes["Flat"], ["P0001", "nobody"])


def test_by_text_asks_with_what_the_encoder_gives(indexes):
    hits = queries.by_text(indexes["Flat"], ["one", "two"], lambda texts: ASKED[: len(texts)], k=4, among=CODES[:9])
    assert np.array_equal(hits.codes, true_codes(CODES[:9], k=4)[:2])


def test_by_history_asks_with_the_mean_and_leaves_out_what_was_bought(indexes):
    bought = ["P0003", "P0010", "P0003", "gone from the shop"]
    hits = queries.by_history(indexes["Flat"], bought, k=5)
    mean = VECTORS[[3, 10]].mean(axis=0, keepdims=True)
    expected = [code for code in true_codes(k=7, asked=mean)[0] if code not in bought][:5]
    assert hits.codes.tolist() == expected


def test_several_interests_take_turns():
    axes = np.eye(4, dtype=np.float32)
    near = axes[[0, 0, 0, 1, 1]] + 0.1 * axes[[2, 3, 2, 2, 3]] * np.array([[1], [2], [3], [1], [2]])
    near = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
    index = build_index(["x1", "x2", "x3", "y1", "y2", "x", "y", "x too"], np.vstack([near, axes[[0, 1, 0]]]))
    bought = ["x", "x too", "y"]  # two of the first kind, one of the second: the first kind goes first
    assert queries.by_history(index, bought, k=4, interests=2).codes.tolist() == ["x1", "y1", "x2", "y2"]
    assert len(queries.by_history(index, bought, k=20, interests=2).codes) == 5  # all there is, none twice


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "HNSW16", "PQ8,RFlat"])
@pytest.mark.parametrize("interests", [1, 3])
def test_by_history_answers_min_of_k_and_what_is_allowed_and_new(indexes, factory, interests):
    bought, among = CODES[:30].tolist(), CODES[20:60].tolist()  # ten of them were bought
    for k, expected in ((7, 7), (500, 30)):
        hits = queries.by_history(indexes[factory], bought, k, interests, among)
        assert len(hits.codes) == len(hits.scores) == len(set(hits.codes)) == expected
        assert set(hits.codes) <= set(among) - set(bought)
    assert len(queries.by_history(indexes[factory], bought, 5000, interests).codes) == len(CODES) - 30
    assert len(queries.by_history(indexes[factory], bought, 5, interests, among=bought).codes) == 0


@pytest.mark.parametrize("k", [0, -3])
def test_by_history_of_no_answers_is_refused(indexes, k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        queries.by_history(indexes["Flat"], ["P0001", "P0002", "P0003", "P0004"], k)


def test_by_history_costs_about_what_a_search_does_however_many_products_there_are():
    index = build_index([str(number) for number in range(200_000)], unit_rows(200_000, 4, seed=2))
    search_seconds, history_seconds = (
        min(timeit.repeat(ask, timer=time.process_time, repeat=5, number=1))
        for ask in (lambda: search_index(index, ASKED[:1, :4]), lambda: queries.by_history(index, ["7", "11"]))
    )
    assert history_seconds < 5 * search_seconds + 0.02  # to list all codes takes 0.1 s more


def test_by_history_of_unknown_products_says_so(indexes):
    with pytest.raises(ValueError, match="none of the 2 products bought"):
        queries.by_history(indexes["Flat"], ["gone", "gone too"])


def test_interest_means_find_planted_groups_and_one_is_the_mean():
    groups = unit_rows(3, 32, seed=5, groups=3)
    sizes = [6, 3, 2]
    rng = np.random.default_rng(0)
    rows = np.repeat(groups, sizes, axis=0) + 0.01 * rng.standard_normal((11, 32))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    means = queries.interest_means(rows, 3)
    assert ((means * groups).sum(axis=1) > 0.99).all()  # largest group first
    mean = rows.mean(axis=0) / np.linalg.norm(rows.mean(axis=0))
    np.testing.assert_allclose(queries.interest_means(rows, 1), mean[None], atol=1e-5)
    assert len(queries.interest_means(rows[[0, 0]], 5)) == 1  # equal vectors are one interest
    with pytest.raises(ValueError, match="interests is 0"):
        queries.interest_means(rows, 0)


# What an index costs


@pytest.mark.parametrize(
    ("factory", "slack"),
    [
        (r, 0.0)
        for r in ("Flat", "SQ8", "PQ8", "PQ16", "IVF16,Flat", "IVF16,PQ8", "IVF16,SQ8", "PQ8,RFlat", "IVF16,PQ8,RFlat")
    ]
    + [("HNSW8", 0.005), ("HNSW32", 0.005)],
)
def test_bytes_by_arithmetic_are_those_of_the_file(factory, slack):
    stored = len(faiss.serialize_index(build_index(CODES, VECTORS, factory).faiss_index))
    counted = measures.index_bytes(factory, *VECTORS.shape)
    assert abs(stored - counted) <= 600 + slack * stored  # the header


def test_product_quantization_costs_a_byte_a_code():
    one, other = (
        len(faiss.serialize_index(build_index(CODES[:n], VECTORS[:n], "PQ8").faiss_index)) for n in (1000, 2000)
    )
    assert other - one == 1000 * 8
    assert measures.index_bytes("PQ8", 2000, 384) - measures.index_bytes("PQ8", 1000, 384) == 1000 * 8
    with pytest.raises(ValueError, match="LSH"):
        measures.index_bytes("LSH", 10, 10)


def test_recall_by_hand():
    found = np.array([["a", "b", "c"], ["x", "y", "z"]])
    truth = np.array([["c", "a", "d"], ["z", "y", "x"]])
    assert measures.index_recall(found, truth) == pytest.approx(5 / 6)
    assert measures.index_recall(truth, truth) == 1 and measures.index_recall(found[:, :0], truth) == 0
    with pytest.raises(ValueError, match="1 queries were answered, the truth is of 2"):
        measures.index_recall(found[:1], truth)


@pytest.mark.parametrize("dimension", [2, 5])
def test_intrinsic_dimension_of_a_plane_in_many_dimensions(dimension):
    rng = np.random.default_rng(0)
    flat = np.hstack([rng.uniform(-1, 1, (20_000, dimension)), np.zeros((20_000, 30 - dimension))])
    flat[:, -1] = 1
    turned = flat @ np.linalg.qr(rng.standard_normal((30, 30)))[0]
    rows = (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)
    assert measures.intrinsic_dimension(rows) == pytest.approx(dimension, rel=0.15)


@pytest.mark.filterwarnings("error")
def test_intrinsic_dimension_leaves_out_equal_texts_and_takes_a_tiny_catalogue():
    line = np.column_stack([np.cos(angles := np.linspace(0, 0.5, 200)), np.sin(angles)]).astype(np.float32)
    alone = measures.intrinsic_dimension(line)
    assert alone == pytest.approx(1, rel=0.2)
    with_equals = np.vstack([line, np.repeat([[0, -1]], 40, axis=0)]).astype(np.float32)
    assert measures.intrinsic_dimension(with_equals) == pytest.approx(alone, rel=0.05)
    assert np.isfinite(measures.intrinsic_dimension(line[:4]))
    with pytest.raises(ValueError, match="only 4 vectors"):
        measures.neighbour_distances(line[:4], line, 5)


def test_neighbour_distances_are_euclidean():
    expected = NearestNeighbors(n_neighbors=4).fit(VECTORS).kneighbors(ASKED)[0]
    np.testing.assert_allclose(measures.neighbour_distances(VECTORS, ASKED, 4), expected, atol=1e-3)


def test_grown_vectors_are_unit_deterministic_new_and_spread_as_the_original():
    grown = measures.grow(VECTORS, 3000, seed=3)
    assert grown.shape == (3000, 32) and grown.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(grown, axis=1), 1, atol=1e-5)
    assert np.array_equal(grown, measures.grow(VECTORS, 3000, seed=3))
    assert not np.array_equal(grown, measures.grow(VECTORS, 3000, seed=4))
    assert measures.neighbour_distances(VECTORS, grown, 1).min() > 1e-3
    assert measures.intrinsic_dimension(grown) == pytest.approx(measures.intrinsic_dimension(VECTORS), rel=0.35)
    assert (
        measures.neighbour_distances(VECTORS, measures.grow(VECTORS, 50, spread=0), 1).max() < 1e-3
    )  # no step: the originals


# Files


@pytest.mark.parametrize("factory", EVERY_KIND)
def test_a_saved_index_answers_as_before(indexes, tmp_path, factory):
    path = save_index(indexes[factory], tmp_path / "folder" / "shop.index")
    again = load_index(path, CODES, VECTORS)
    assert again.factory == factory and list(again.codes) == list(CODES)
    before, after = (search_index(index, ASKED, 10, among=CODES[:1200]) for index in (indexes[factory], again))
    assert np.array_equal(before.codes, after.codes) and np.array_equal(before.scores, after.scores)
    assert [file.name for file in path.parent.iterdir()] == ["shop.index"]


@pytest.mark.parametrize(
    ("codes", "vectors", "message"),
    [
        (CODES[:-1], VECTORS[:-1], "holds 1 that it has not ['P1999']"),
        (np.append(CODES[:-1], "new"), VECTORS, "lacks 1 of its products ['new']"),
        (CODES, np.roll(VECTORS, 1, axis=0), "the vectors differ"),
        (CODES[::-1], VECTORS[::-1], "another order"),
    ],
)
def test_an_index_of_another_catalogue_is_refused_by_name(indexes, tmp_path, codes, vectors, message):
    path = save_index(indexes["Flat"], tmp_path / "shop.index")
    with pytest.raises(ValueError, match=re.escape(message)) as refusal:
        load_index(path, codes, vectors)
    assert str(path) in str(refusal.value)


def test_one_changed_bit_of_one_vector_changes_the_fingerprint():
    changed = VECTORS.copy()
    changed[5, 5] = np.nextafter(changed[5, 5], np.float32(1))
    mine, its = catalogue_fingerprint(CODES, VECTORS), catalogue_fingerprint(CODES, changed)
    assert mine["codes"] == its["codes"] and mine["vectors"] != its["vectors"]
    assert (
        catalogue_fingerprint(["a", "bc"], VECTORS[:2])["codes"]
        != catalogue_fingerprint(["ab", "c"], VECTORS[:2])["codes"]
    )


@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "empty", "text", "part missing", "a list"])
def test_a_damaged_file_is_named(indexes, tmp_path, damage):
    path = save_index(indexes["IVF16,Flat"], tmp_path / "shop.index")
    content = path.read_bytes()
    if damage in ("part missing", "a list"):
        with zipfile.ZipFile(path, "w") as parts:
            parts.writestr(
                "catalogue.json", json.dumps({"format": INDEX_FORMAT} if damage == "part missing" else ["a"])
            )
    else:
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        made = {"truncated": content[:-500], "bit flipped": bytes(flipped), "empty": b"", "text": b"not an index"}
        path.write_bytes(made[damage])
    with pytest.raises(ValueError, match="is damaged, or no index") as refusal:
        load_index(path, CODES, VECTORS)
    assert str(path) in str(refusal.value)


def read_parts(path) -> dict:
    """The two members of an index's file, the catalogue parsed."""
    with zipfile.ZipFile(path) as kept:
        parts = {name: kept.read(name) for name in kept.namelist()}
    return parts | {"catalogue.json": json.loads(parts["catalogue.json"])}


def write_parts(path, parts: dict, stamp: bool) -> None:
    """Write them again, as a file with good CRCs; with `stamp`, with a good checksum too."""
    about = parts["catalogue.json"]
    if stamp:
        said = json.dumps({name: value for name, value in about.items() if name != "sha256"}, sort_keys=True)
        about = about | {"sha256": hashlib.sha256(parts["index.faiss"] + said.encode()).hexdigest()}
    with zipfile.ZipFile(path, "w") as other:
        other.writestr("index.faiss", parts["index.faiss"])
        other.writestr("catalogue.json", json.dumps(about))


def test_a_file_of_another_format_is_refused(indexes, tmp_path):
    path = save_index(indexes["Flat"], tmp_path / "shop.index")
    parts = read_parts(path)
    write_parts(path, parts | {"catalogue.json": parts["catalogue.json"] | {"format": 99}}, stamp=False)
    with pytest.raises(ValueError, match="shop.index has format 99, this recbook reads 2: build"):
        load_index(path, CODES, VECTORS)


@pytest.mark.parametrize("stamp", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        {"codes": []}, {"codes": ["x"] * len(CODES)}, {"codes": list(CODES[:-1])}, {"codes": [*CODES, CODES[0]]},
        {"codes": [CODES[0], *CODES[:-1]]}, {"codes": list(range(len(CODES)))}, {"codes": None}, {"codes": "x"},
        {"codes": [*CODES[:-1], None]}, {"codes": [*CODES[:-1], ["x"]]}, {"codes": {code: 1 for code in CODES}},
        {"fingerprint": None}, {"fingerprint": []}, {"fingerprint": "x"}, {"fingerprint": {}},
        {"fingerprint": {"codes": 1, "vectors": 2}}, {"factory": None}, {"factory": 7}, {"factory": "no such thing"},
        {"factory": "Flat"}, {"factory": "IVF16,SQ8"}, {"factory": "IVF8,Flat"}, {"format": True}, {"sha256": None},
        {"sha256": 7},
    ],
    ids=lambda change: json.dumps(change)[:30],
)  # fmt: skip
def test_a_catalogue_that_does_not_fit_its_index_is_refused(indexes, tmp_path, change, stamp):
    path = save_index(indexes["IVF16,Flat"], tmp_path / "shop.index")
    parts = read_parts(path)
    write_parts(path, parts, stamp=True)
    load_index(path, CODES, VECTORS)
    stamp = stamp and "sha256" not in change
    write_parts(path, parts | {"catalogue.json": parts["catalogue.json"] | change}, stamp)
    with pytest.raises(ValueError, match="(?i)build the index again") as refusal:
        load_index(path, CODES, VECTORS)
    assert str(path) in str(refusal.value) and len(str(refusal.value)) < 400


@pytest.mark.parametrize("stamp", [False, True])
@pytest.mark.parametrize(
    "other", ["Flat", "HNSW16", "PQ8", "IVF16,SQ8", "fewer", "more", "narrower", "distances", "bytes"]
)
def test_an_index_that_is_swapped_for_another_is_refused(indexes, tmp_path, other, stamp):
    path = save_index(indexes["IVF16,Flat"], tmp_path / "shop.index")
    made = {
        "fewer": lambda: build_index(CODES[:500], VECTORS[:500], "IVF16,Flat").faiss_index,
        "more": lambda: build_index([*CODES, "x"], np.vstack([VECTORS, VECTORS[:1]]), "IVF16,Flat").faiss_index,
        "narrower": lambda: build_index(CODES, unit_rows(2000, 16, seed=0), "IVF16,Flat").faiss_index,
        "distances": lambda: filled(faiss.index_factory(32, "IVF16,Flat", faiss.METRIC_L2)),
        "bytes": lambda: None,
    }
    swapped = made[other]() if other in made else indexes[other].faiss_index
    parts = read_parts(path)
    written = b"\x00" * 50 + parts["index.faiss"] if swapped is None else faiss.serialize_index(swapped).tobytes()
    write_parts(path, parts | {"index.faiss": written}, stamp)
    with pytest.raises(ValueError, match="is damaged, or no index .* delete it and build the index again") as refusal:
        load_index(path, CODES, VECTORS)
    assert str(path) in str(refusal.value)


def test_an_index_of_other_vectors_is_refused_though_all_else_fits(tmp_path):
    one, other = (save_index(build_index(CODES, unit_rows(2000, 8, seed)), tmp_path / f"{seed}") for seed in (3, 4))
    write_parts(one, read_parts(one) | {"index.faiss": read_parts(other)["index.faiss"]}, stamp=False)
    with pytest.raises(ValueError, match="its parts are not those that were saved together"):
        load_index(one, CODES, unit_rows(2000, 8, 3))


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "IVF16_HNSW8,Flat", "L2norm,Flat", "PCA8,Flat", "PQ8x4", "SQfp16"])
def test_less_usual_recipes_are_loaded_too(tmp_path, factory):
    index = build_index(CODES[:600], VECTORS[:600], factory)
    again = load_index(save_index(index, tmp_path / "shop.index"), CODES[:600], VECTORS[:600])
    assert again.factory == factory and again.faiss_index.ntotal == 600


def filled(index):
    index.train(VECTORS)
    index.add(VECTORS)
    return index


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(indexes, tmp_path, monkeypatch):
    path = save_index(indexes["Flat"], tmp_path / "shop.index")
    before = path.read_bytes()

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(faiss, "write_index", fails)
    with pytest.raises(OSError, match="full"):
        save_index(indexes["HNSW16"], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_index(tmp_path / "nowhere.index", CODES, VECTORS)
