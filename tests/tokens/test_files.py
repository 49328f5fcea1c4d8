"""files: against the bytes of the file as NumPy reads them, hand-made windows, and a bound on memory."""

import hashlib
import json
import os
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from recbook.tokens.files import TokenWindows, read_tokens, write_tokens
from recbook.tokens.vocabulary import CONTROL_TOKENS, Vocabulary

pytest.importorskip("tiktoken")
torch = pytest.importorskip("torch")

BYTES = {bytes([byte]): byte for byte in range(256)}
VOCABULARY = Vocabulary(BYTES, ["85123A", "22423"])
END = VOCABULARY.control["<|end|>"]
DOCUMENTS = [[1, 2, 3], [], [VOCABULARY.product["22423"], 7]]
STREAM = [1, 2, 3, END, END, VOCABULARY.product["22423"], 7, END]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corpus.tokens"


# ---- files ---------------------------------------------------------------------------------------------------------


def test_documents_come_back_each_closed(path):
    assert write_tokens(path, iter(DOCUMENTS), VOCABULARY) == len(STREAM)
    ids = read_tokens(path, VOCABULARY)
    assert isinstance(ids, np.memmap) and ids.dtype == np.uint16 and ids.tolist() == STREAM
    assert np.frombuffer(path.read_bytes()[256:], "<u2").tolist() == STREAM
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 5


def test_the_header_names_the_vocabulary_and_is_readable(path):
    write_tokens(path, DOCUMENTS, VOCABULARY)
    first, second = path.read_bytes()[:256].decode("ascii").splitlines()
    assert first == "recbook tokens"
    assert json.loads(second) == {
        "format": 2,
        "vocabulary": VOCABULARY.fingerprint,
        "dtype": "uint16",
        "tokens": len(STREAM),
        "sha256": hashlib.sha256(np.array(STREAM, "<u2").tobytes()).hexdigest(),
    }


@pytest.mark.parametrize(("size", "dtype", "width"), [(2**16, np.uint16, 2), (2**16 + 1, np.uint32, 4)])
def test_ids_take_two_bytes_as_long_as_they_fit(path, size, dtype, width):
    large = Vocabulary(BYTES, range(size - 256 - len(CONTROL_TOKENS)))
    assert len(large) == size
    write_tokens(path, [[0, size - 1]], large)
    ids = read_tokens(path, large)
    assert ids.dtype == dtype and ids.tolist() == [0, size - 1, large.control["<|end|>"]]
    assert path.stat().st_size == 256 + 3 * width


def test_another_vocabulary_is_refused(path):
    write_tokens(path, DOCUMENTS, VOCABULARY)
    for products in (["22423", "85123A"], ["85123A"]):
        with pytest.raises(ValueError, match=r"corpus\.tokens was written with another vocabulary"):
            read_tokens(path, Vocabulary(BYTES, products))


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole[:-2], lambda whole: whole + b"\0\0"])
def test_a_file_of_another_length_is_refused(path, change):
    write_tokens(path, DOCUMENTS, VOCABULARY)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"corpus\.tokens is damaged: it should hold 8 tokens, not [79]"):
        read_tokens(path, VOCABULARY)


def header(**changes) -> bytes:
    """A header, right but for some changes."""
    about = {"format": 2, "vocabulary": VOCABULARY.fingerprint, "dtype": "uint16", "tokens": 8, "sha256": "0"} | changes
    return (b"recbook tokens\n" + json.dumps(about).encode()).ljust(255) + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"recbook tokens\n",
        b"InvoiceNo,StockCode\n" * 40,
        bytes(256 + 16),
        b"recbook tokens\n" + bytes(256),
        header()[:255],
        header(format=1),
        header(dtype="float64"),
        header(tokens=-1),
        header(tokens=0),
        header(tokens="8"),
        header(vocabulary=None),
        header(sha256=7),
    ],
)
def test_what_is_no_token_file_is_refused_by_name(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus\.tokens is no token file .* write one with"):
        read_tokens(path, VOCABULARY)


@pytest.mark.parametrize("size", [2**16, 2**16 + 1])
def test_every_flipped_bit_is_noticed(path, size):
    large = Vocabulary(BYTES, range(size - 256 - len(CONTROL_TOKENS)))
    write_tokens(path, [[1, 2, 3]], large)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"corpus\.tokens"):
            read_tokens(path, large)


def test_what_is_no_file_is_refused_and_not_waited_for(path):
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"corpus\.tokens is no file"):
        read_tokens(path, VOCABULARY)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match="corpus.tokens"):
        read_tokens(path, VOCABULARY)


def failing(after: int):
    """Documents that break off."""
    yield from [[1]] * after
    raise RuntimeError("the receipts ended too soon")


@pytest.mark.parametrize("after", [0, 1, 100_000])
def test_a_failing_generator_leaves_nothing_behind(path, after):
    with pytest.raises(RuntimeError, match="too soon"):
        write_tokens(path, failing(after), VOCABULARY)
    assert list(path.parent.iterdir()) == []
    write_tokens(path, DOCUMENTS, VOCABULARY)
    with pytest.raises(RuntimeError):
        write_tokens(path, failing(after), VOCABULARY)
    assert read_tokens(path, VOCABULARY).tolist() == STREAM  # what was there is there


def test_no_documents_are_refused(path):
    with pytest.raises(ValueError, match="there are no documents"):
        write_tokens(path, [], VOCABULARY)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("stray", [-1, len(VOCABULARY), 70_000])
def test_ids_that_are_not_there_are_refused(path, stray):
    with pytest.raises(ValueError, match=f"id {stray}; the vocabulary's go from 0 to {len(VOCABULARY) - 1}"):
        write_tokens(path, [[1], [2, stray, 3]], VOCABULARY)
    assert list(path.parent.iterdir()) == []


def test_a_corpus_larger_than_memory_is_written_and_read(path):
    bound = 2_000_000  # bytes
    document = list(range(200)) * 5
    tracemalloc.start()
    try:
        count = write_tokens(path, (document for _ in range(10_000)), VOCABULARY)
        windows = TokenWindows(read_tokens(path, VOCABULARY), 128)
        for step in range(20):
            windows.batch(step, 16)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == 256 + 2 * count > 10 * bound
    assert peak < bound


# ---- windows -------------------------------------------------------------------------------------------------------

COUNTING = np.arange(1000, dtype=np.uint16)


def test_a_batch_is_windows_and_what_follows_them():
    inputs, targets = TokenWindows(COUNTING, 8).batch(step=3, size=64, seed=1)
    assert inputs.shape == targets.shape == (64, 8) and inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(targets, inputs + 1)  # the stream counts, so the next token is one more
    assert torch.equal(inputs, inputs[:, :1] + torch.arange(8))
    assert inputs.is_contiguous() and targets.is_contiguous()


def test_a_batch_is_a_function_of_step_size_and_seed():
    windows = TokenWindows(COUNTING, 8)
    again = TokenWindows(COUNTING.copy(), 8)
    assert torch.equal(windows.batch(5, 16, seed=2)[0], again.batch(5, 16, seed=2)[0])
    starts = [windows.batch(step, 16, seed)[0][:, 0].tolist() for step, seed in ((5, 2), (6, 2), (5, 3), (2, 5))]
    assert len(set(map(tuple, starts))) == 4


def test_every_place_is_drawn_equally_often():
    windows = TokenWindows(COUNTING[:11], 8)  # three places: 0, 1, 2
    starts = Counter(start for step in range(100) for start in windows.batch(step, 30)[0][:, 0].tolist())
    assert sorted(starts) == [0, 1, 2]
    assert all(abs(count - 1000) < 4 * (3000 * 1 / 3 * 2 / 3) ** 0.5 for count in starts.values())  # four deviations


@pytest.mark.parametrize("length", [9, 16, 17, 18, 24, 25, 100, 1000])
@pytest.mark.parametrize("size", [1, 3, 500])
def test_blocks_cover_every_target_once(length, size):
    blocks = list(TokenWindows(COUNTING[:length], 8).blocks(size))
    targets = torch.cat([targets.flatten() for _, targets in blocks])
    assert targets.tolist() == list(range(1, length))
    for inputs, targets in blocks:
        assert inputs.shape == targets.shape and len(inputs) <= size and inputs.shape[1] <= 8
        assert torch.equal(inputs + 1, targets)


def test_a_stream_too_short_is_refused():
    assert TokenWindows(COUNTING[:9], 8).batch(0, 2)[0].tolist() == [list(range(8))] * 2
    with pytest.raises(ValueError, match="8 tokens are too few.* need 9"):
        TokenWindows(COUNTING[:8], 8)
