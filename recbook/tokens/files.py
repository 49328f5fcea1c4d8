"""Token files: documents one after the other in a file that is mapped into memory; the windows that training reads.

A file begins with a header of 256 bytes, readable as text, that says which vocabulary its ids belong to, and their
checksum; then come the ids, two bytes each or four. `read_tokens` refuses another vocabulary. A corpus may be larger
than memory: it is streamed to the disk, and only the windows that are asked for are kept in memory.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbook.storage import Damaged, check_file, whole_file
from recbook.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

TOKENS_SIGNATURE = b"recbook tokens\n"
HEADER_BYTES = 256
TOKENS_FORMAT = 2
DOCUMENT_END = "<|end|>"


def dtype_for(vocabulary: Vocabulary) -> np.dtype:
    """The smallest integer that holds every id: two bytes up to 65,536 tokens, four beyond; low byte first."""
    return np.dtype("<u2" if len(vocabulary) <= 2**16 else "<u4")


def write_tokens(path: str | Path, documents: Iterable[Sequence[int]], vocabulary: Vocabulary) -> int:
    """Write documents one after the other, each closed by `<|end|>`, to a token file; returns the number of tokens.

    Documents are streamed, so a corpus may be larger than memory. The file is there whole, or not at all. ValueError if
    an id is not of the vocabulary, or if there is no document.
    """
    dtype, end, count = dtype_for(vocabulary), vocabulary.control[DOCUMENT_END], 0
    checksum = hashlib.sha256()
    with whole_file(path) as file:
        file.write(bytes(HEADER_BYTES))  # its place; the count is known at the end
        for document in documents:
            ids = np.asarray([*document, end], dtype=np.int64)
            if ids.min() < 0 or ids.max() >= len(vocabulary):
                stray = ids[(ids < 0) | (ids >= len(vocabulary))][0]
                raise ValueError(f"a document holds id {stray}; the vocabulary's go from 0 to {len(vocabulary) - 1}")
            written = ids.astype(dtype).tobytes()
            file.write(written)
            checksum.update(written)
            count += len(ids)
        if not count:
            raise ValueError(f"there are no documents to write to {path}; a generator gives its documents only once")
        file.seek(0)
        file.write(_header(vocabulary, dtype, count, checksum.hexdigest()))
    return count


def read_tokens(path: str | Path, vocabulary: Vocabulary) -> np.ndarray:
    """A token file as a memory-mapped array of ids, (tokens,) uint16 or uint32, read from the disk as it is used.

    ValueError if it is no token file, is damaged, or was written with another vocabulary.
    """
    path = Path(path)
    check_file(path)
    with path.open("rb") as file:  # once: who reads while another is written reads all of the old one
        about = _about(path, file.read(HEADER_BYTES))
        if about["vocabulary"] != vocabulary.fingerprint:
            raise ValueError(
                f"{path} was written with another vocabulary ({about['vocabulary'][:8]}…, not "
                f"{vocabulary.fingerprint[:8]}…), its ids would mean other tokens: load its own, or write it again"
            )
        _check_ids(path, file, about)
        dtype = np.dtype(about["dtype"]).newbyteorder("<")
        return np.memmap(file, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(about["tokens"],))


def _header(vocabulary: Vocabulary, dtype: np.dtype, tokens: int, checksum: str) -> bytes:
    about = {"format": TOKENS_FORMAT, "vocabulary": vocabulary.fingerprint, "dtype": dtype.name, "tokens": tokens}
    about["sha256"] = checksum
    return (TOKENS_SIGNATURE + json.dumps(about).encode()).ljust(HEADER_BYTES - 1) + b"\n"


def _check_ids(path: Path, file: BufferedReader, about: dict) -> None:
    """Damaged if the rest of the file is not as many ids as the header says, or does not have their checksum."""
    found = (os.fstat(file.fileno()).st_size - HEADER_BYTES) / np.dtype(about["dtype"]).itemsize
    if found != about["tokens"]:
        raise Damaged(f"{path} is damaged: it should hold {about['tokens']} tokens, not {found:.12g}. Write it again.")
    if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
        raise Damaged(f"{path} is damaged: its tokens do not have the checksum that it states. Write it again.")


def _about(path: Path, header: bytes) -> dict:
    """What the header says, checked."""
    try:
        if len(header) < HEADER_BYTES or not header.startswith(TOKENS_SIGNATURE):
            raise ValueError("it does not begin as one")
        about = json.loads(header[len(TOKENS_SIGNATURE) :])
        if about["format"] != TOKENS_FORMAT or about["dtype"] not in ("uint16", "uint32"):
            raise ValueError(f"format {about['format']} of {about['dtype']}, this recbook reads format {TOKENS_FORMAT}")
        texts = isinstance(about["vocabulary"], str) and isinstance(about["sha256"], str)
        if not texts or type(about["tokens"]) is not int or about["tokens"] < 1:
            raise ValueError("its header makes no sense")
    except (ValueError, KeyError, TypeError) as error:
        remedy = "write one with recbook.tokens.files.write_tokens"
        raise Damaged(f"{path} is no token file ({error}): {remedy}") from error
    return about


@dataclass(frozen=True)
class TokenWindows:
    """Windows of `context` tokens on a stream of tokens, each with its targets: the same window, one token further on.

    ValueError if the stream is too short for one window.
    """

    tokens: np.ndarray  # (tokens,), memory-mapped or not
    context: int  # tokens

    def __post_init__(self) -> None:
        if len(self.tokens) <= self.context:
            needed = f"a window of {self.context} and its last target need {self.context + 1}"
            raise ValueError(f"{len(self.tokens)} tokens are too few: {needed}. Take a shorter context, or more text.")

    def batch(self, step: int, size: int, seed: int = 0) -> "tuple[torch.Tensor, torch.Tensor]":
        """`size` random windows as (tokens, targets), both (B, T) int64: a pure function of step, size and seed.

        So a training that starts again at step 1,000 sees what it would have seen, and nothing has to be stored.
        """
        starts = np.random.default_rng((seed, step)).integers(len(self.tokens) - self.context, size=size)
        return self._at(starts, self.context)

    def blocks(self, size: int) -> "Iterator[tuple[torch.Tensor, torch.Tensor]]":
        """The whole stream as consecutive windows, at most `size` a batch: each token but the first is once a target.

        What is left at the end comes last, as one shorter window; weight losses by the number of targets.
        """
        last = len(self.tokens) - 1  # so many targets
        starts = np.arange(0, last - self.context + 1, self.context)
        for first in range(0, len(starts), size):
            yield self._at(starts[first : first + size], self.context)
        if last % self.context:
            yield self._at(np.array([last - last % self.context]), last % self.context)

    def _at(self, starts: np.ndarray, length: int) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        places = starts[:, None] + np.arange(length + 1)  # (B,) -> (B, T + 1)
        rows = torch.from_numpy(self.tokens[places].astype(np.int64))
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
