"""Text and products as tokens: byte-pair encoding, control tokens, one token per product.

A vocabulary is a `tiktoken.Encoding`, learned on the shop's own text or GPT-2's, with control tokens and one token per
product behind its text tokens. Text is always encoded as text: a description that spells out `<|basket|>` gives the
characters, never the control token. Sennrich et al. (2016); Radford et al. (2019).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from recbook.storage import read_json, readable, whole_file

CONTROL_TOKENS = (
    "<|end|>",
    "<|pad|>",
    "<|product|>",
    "<|basket|>",
    "<|shopper|>",
    "<|because|>",
    "<|request|>",
    "<|answer|>",
)
# GPT-2's way to cut text into words before merging: contractions, letters, digits, the rest, and spaces.
BPE_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
VOCABULARY_FORMAT = 1  # of a saved vocabulary


@dataclass(frozen=True)
class Vocabulary:
    """Text tokens (`ranks`: bytes -> id), then control tokens, then one token per product, in the order given.

    ValueError if the ranks are not 0, 1, 2 …, lack one of the 256 bytes, or if two tokens have the same name.
    """

    ranks: dict[bytes, int] = field(repr=False, hash=False)
    products: tuple[str, ...] = field(default=(), repr=False)  # codes
    specials: tuple[str, ...] = CONTROL_TOKENS

    def __post_init__(self) -> None:
        object.__setattr__(self, "products", tuple(map(str, self.products)))  # numpy's strings too
        object.__setattr__(self, "specials", tuple(self.specials))
        if sorted(self.ranks.values()) != list(range(len(self.ranks))):
            raise ValueError(
                "the ids of text tokens must be 0, 1, 2 …, each once, as `learn_bpe` and `gpt2_ranks` give them"
            )
        if missing := [byte for byte in range(256) if bytes([byte]) not in self.ranks]:
            raise ValueError(
                f"each byte needs a token, or some texts could not be written; there is none for {missing}"
            )
        _check_names([*self.specials, *map(product_token, self.products)])

    def __len__(self) -> int:
        return len(self.ranks) + len(self.specials) + len(self.products)

    @cached_property
    def control(self) -> dict[str, int]:
        """The id of every control token, by its name, such as `<|basket|>`."""
        return {name: len(self.ranks) + place for place, name in enumerate(self.specials)}

    @cached_property
    def product(self) -> dict[str, int]:
        """The id of every product's token, by its code."""
        first = len(self.ranks) + len(self.specials)
        return {code: first + place for place, code in enumerate(self.products)}

    @cached_property
    def encoding(self) -> Any:
        """The `tiktoken.Encoding`; product "85123A" is its special token `<|85123A|>`."""
        import tiktoken

        special = self.control | {product_token(code): place for code, place in self.product.items()}
        return tiktoken.Encoding("recbook", pat_str=BPE_PATTERN, mergeable_ranks=self.ranks, special_tokens=special)

    def encode(self, text: str) -> list[int]:
        """Text as ids of text tokens only, whatever it spells; exact for any Unicode text.

        A lone surrogate, half of a character that some broken decoder left, has no bytes: ValueError says where it is.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            remedy = "read the file with its right encoding, or use text.encode('utf-8', 'replace').decode()"
            raise ValueError(f"character {error.start} of the text is a lone surrogate, not text: {remedy}") from error
        return self.encoding.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of any ids, control and product tokens by name; bytes that are no whole character become U+FFFD.

        ValueError names an id that the vocabulary does not have.
        """
        ids = [int(token) for token in ids]
        if stray := [token for token in ids if not 0 <= token < len(self)]:
            raise ValueError(f"there is no token {stray[0]}: this vocabulary's ids go from 0 to {len(self) - 1}")
        return self.encoding.decode(ids)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of everything that gives an id its meaning."""
        content = [[token.hex() for token in _in_order(self.ranks)], self.specials, self.products]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        tokens = [token.hex() for token in _in_order(self.ranks)]
        content = {"format": VOCABULARY_FORMAT, "fingerprint": self.fingerprint, "tokens": tokens}
        content |= {"specials": self.specials, "products": self.products}
        with whole_file(path) as file:
            file.write(json.dumps(content).encode())

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        """Read what `save` wrote. ValueError if the file is damaged, or no vocabulary."""
        with readable(path, "a vocabulary", "delete it and build it again"):
            content = read_json(Path(path))
            if content["format"] != VOCABULARY_FORMAT:
                raise ValueError(f"its format is {content['format']}, this recbook reads {VOCABULARY_FORMAT}")
            ranks = {bytes.fromhex(token): rank for rank, token in enumerate(content["tokens"])}
            vocabulary = cls(ranks, content["products"], content["specials"])
            if vocabulary.fingerprint != content["fingerprint"]:
                raise ValueError("its content does not have the fingerprint that it states")
            return vocabulary


def product_token(code: str) -> str:
    """The name of a product's token: "85123A" is `<|85123A|>`."""
    return f"<|{code}|>"


def learn_bpe(texts: Iterable[str], size: int = 2048) -> dict[bytes, int]:
    """Byte-pair encoding of `size` text tokens at most, learned by the `tokenizers` library: bytes -> id.

    The 256 bytes come first, then the merges in the order learned, most frequent first; of equally frequent pairs the
    one with the smallest ids. A pair that occurs only once is never merged, so a short text gives fewer tokens.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if size < 256:
        raise ValueError(f"{size} tokens are too few: the 256 bytes alone need one each")
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(BPE_PATTERN), "isolated"), byte_level]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    byte = letter_bytes()
    tokens = _in_order(tokenizer.get_vocab())
    return {bytes(byte[letter] for letter in token): rank for rank, token in enumerate(tokens)}


def gpt2_ranks() -> dict[bytes, int]:
    """GPT-2's 50,256 text tokens, from tiktoken, which downloads two files once or finds them in TIKTOKEN_CACHE_DIR.

    OSError if they are neither there nor to be downloaded.
    """
    import tiktoken

    try:
        gpt2 = tiktoken.get_encoding("gpt2")
    except OSError as error:
        remedy = "connect once, or set TIKTOKEN_CACHE_DIR to a folder that has tiktoken's files"
        raise OSError(f"GPT-2's vocabulary is not in the cache and cannot be downloaded: {remedy}") from error
    return {gpt2.decode_single_token_bytes(rank): rank for rank in range(gpt2.eot_token)}  # <|endoftext|> comes last


def letter_bytes() -> dict[str, int]:
    """The byte that each letter stands for in byte-level vocabularies, in the order of the bytes' ids.

    Such files hold text, so every byte is written as a visible letter: printable bytes as themselves, the others as the
    letters from U+0100 on. Radford et al. (2019).
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


def _in_order(ranks: dict) -> list:
    return sorted(ranks, key=ranks.__getitem__)


def _check_names(names: Sequence[str]) -> None:
    """Refuse names of control and product tokens that stand twice, or that cannot be written."""
    seen = set()
    for name in names:
        if name in seen:
            remedy = "pass each product once, and rename a product whose code is a control token's name"
            raise ValueError(f"two tokens would be called {name}: {remedy}")
        seen.add(name)
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the token name {ascii(name)} holds a lone surrogate: mend the product's code") from error
