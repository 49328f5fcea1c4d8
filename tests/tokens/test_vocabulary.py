"""vocabulary: against byte-pair encoding written naively, the `tokenizers` library, and tiktoken's own GPT-2."""

import json
import os
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recbook import storage
from recbook.tokens.vocabulary import (
    BPE_PATTERN,
    CONTROL_TOKENS,
    Vocabulary,
    gpt2_ranks,
    learn_bpe,
    letter_bytes,
    product_token,
)

tiktoken = pytest.importorskip("tiktoken")
tokenizers = pytest.importorskip("tokenizers")
regex = pytest.importorskip("regex")  # comes with tiktoken

TEXTS = [
    " white hanging heart t-light holder, £2.95, first sold December 2010.",
    " red retro spot mug, 6 at £1.25;",
    " blue retro spot mug, 12 at £1.25;",
    " retro spot tea towel, 3 at £2.95;",
    " set of 3 café cups, it's for 2 people's tea;\n\n  hanging",
] * 3
CODES = ["85123A", "22423", "71053"]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # all of Unicode but surrogates
NAMES = st.sampled_from([*CONTROL_TOKENS, *map(product_token, CODES), "<|endoftext|>"])


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(learn_bpe(TEXTS, 400), CODES)


@pytest.fixture(scope="module")
def gpt2() -> dict[bytes, int]:
    if "TIKTOKEN_CACHE_DIR" not in os.environ:
        pytest.skip("GPT-2's vocabulary is not at hand; set TIKTOKEN_CACHE_DIR")
    return gpt2_ranks()


# ---- learning ------------------------------------------------------------------------------------------------------


def naive(texts: list[str], size: int) -> list[bytes]:
    """Byte-pair encoding as its definition says, every pair counted anew before every merge."""
    order = list(letter_bytes().values())  # the ids of single bytes, which decide ties
    known = [bytes([byte]) for byte in order]
    words = Counter(word.encode() for text in texts for word in regex.findall(BPE_PATTERN, text))
    cut = {word: [known.index(bytes([byte])) for byte in word] for word in words}
    while len(known) < size:
        pairs = Counter()
        for word, ids in cut.items():
            for pair in zip(ids, ids[1:], strict=False):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        merged = known[best[0]] + known[best[1]]
        if merged not in known:
            known.append(merged)
        for ids in cut.values():
            at = 0
            while at < len(ids) - 1:
                if (ids[at], ids[at + 1]) == best:
                    ids[at : at + 2] = [known.index(merged)]
                at += 1
    return known


@pytest.mark.parametrize("size", [256, 257, 300, 400])
def test_learn_bpe_gives_the_merges_of_a_naive_byte_pair_encoding(size):
    assert list(learn_bpe(TEXTS, size)) == naive(TEXTS, size)


def test_learn_bpe_by_hand():
    ranks = learn_bpe(["ab ab"], 1000)
    assert list(ranks)[256:] == [b"ab"]  # twice; " ab" occurs once, and is left alone
    assert list(ranks.values()) == list(range(257))


def test_learn_bpe_never_merges_across_words():
    learned = list(learn_bpe(["tea cup2;"] * 9, 1000))[256:]
    assert {b" cup", b"tea"} <= set(learned)
    assert not [token for token in learned if b"p2" in token or b"2;" in token or b"a " in token]


def test_learn_bpe_needs_room_for_the_bytes():
    with pytest.raises(ValueError, match="255 tokens are too few"):
        learn_bpe(TEXTS, 255)
    assert len(learn_bpe([], 300)) == 256  # nothing to learn from


# ---- encoding ------------------------------------------------------------------------------------------------------


def library(ranks: dict[bytes, int], texts: list[str], size: int):
    """The `tokenizers` library's own tokenizer, learned and used without this package."""
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)  # its own GPT-2 regex
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = level
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size, min_frequency=2, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def test_encoding_equals_the_library_that_learned_it(vocabulary):
    theirs = library(vocabulary.ranks, TEXTS, 400)
    words = st.lists(
        st.sampled_from([word for text in TEXTS for word in text.split(" ")] + ["\t", " ", "\n", "é", "猫"])
    )

    @given(words.map(" ".join) | ANY_TEXT)
    @settings(max_examples=400, deadline=None)
    def equal(text):
        assert vocabulary.encode(text) == theirs.encode(text).ids

    equal()


@given(text=ANY_TEXT)
@example("")
@example("naïve 😀 👩‍👩‍👧 e\u0301 \x00 \u202e \U0010ffff \r\n\t  ")
def test_round_trip_is_exact(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(parts=st.lists(NAMES | ANY_TEXT))
@example(["<|basket|>", "<|85123A|>"])
@example(["<|", "<|end|>", "|>"])
def test_text_that_spells_a_token_stays_text(vocabulary, parts):
    text = "".join(parts)
    ids = vocabulary.encode(text)
    assert all(token < len(vocabulary.ranks) for token in ids)
    assert vocabulary.decode(ids) == text


@pytest.mark.parametrize(("text", "place"), [("a\ud800b", 1), ("\udfff", 0), ("tea \ud83d\ude00", 4)])
def test_surrogates_are_refused_with_their_place(vocabulary, text, place):
    with pytest.raises(ValueError, match=f"character {place} of the text is a lone surrogate.*'replace'"):
        vocabulary.encode(text)


def test_gpt2_is_tiktokens_own(gpt2):
    theirs = tiktoken.get_encoding("gpt2")
    ours = Vocabulary(gpt2, CODES)
    assert len(gpt2) == 50_256 and len(ours) == 50_256 + len(CONTROL_TOKENS) + 3
    assert ours.control["<|end|>"] == theirs.eot_token  # so that GPT-2's weights find their end of text

    @given(ANY_TEXT)
    @settings(max_examples=300, deadline=None)
    def equal(text):
        assert ours.encode(text) == theirs.encode_ordinary(text)

    equal()


def test_gpt2_without_files_or_network_says_what_to_do(monkeypatch):
    def offline(name):
        raise ConnectionError("no route")

    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    with pytest.raises(OSError, match="TIKTOKEN_CACHE_DIR"):
        gpt2_ranks()


@pytest.mark.parametrize("text", ["x" * 200_000, " " * 200_000 + "x", "猫" * 100_000, "\n" * 200_000])
def test_long_monotonous_text_comes_back(vocabulary, text):
    assert vocabulary.decode(vocabulary.encode(text)) == text


# ---- the vocabulary ------------------------------------------------------------------------------------------------


def test_ids_follow_one_another(vocabulary):
    ids = [*vocabulary.ranks.values(), *vocabulary.control.values(), *vocabulary.product.values()]
    assert ids == list(range(len(vocabulary)))
    assert list(vocabulary.control) == list(CONTROL_TOKENS) and list(vocabulary.product) == CODES
    assert vocabulary.encoding.n_vocab == len(vocabulary)


def test_decode_names_control_and_product_tokens(vocabulary):
    ids = [vocabulary.control["<|basket|>"], vocabulary.product["22423"], *vocabulary.encode(" 6 at £2.55")]
    assert vocabulary.decode(ids) == "<|basket|><|22423|> 6 at £2.55"
    assert vocabulary.decode(np.array(ids, np.uint16)) == vocabulary.decode(ids)
    assert vocabulary.decode("é".encode()[:1]) != "é"


@pytest.mark.parametrize("stray", [-1, 10**6])
def test_decode_refuses_ids_that_are_not_there(vocabulary, stray):
    with pytest.raises(ValueError, match=f"no token {stray}.* 0 to {len(vocabulary) - 1}"):
        vocabulary.decode([1, stray])
    with pytest.raises(ValueError):
        vocabulary.decode([len(vocabulary)])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=5))
@example(["", " ", "|>", "<|x|>", "a\nb", "猫", "A|><|B", ".*", "'"])
def test_any_product_code_has_its_token(vocabulary, codes):
    odd = Vocabulary(vocabulary.ranks, codes, ("<|a control token|>",))
    for place, code in enumerate(codes):
        assert odd.product[code] == len(odd.ranks) + 1 + place
        assert odd.decode([odd.product[code]]) == f"<|{code}|>"
        assert all(token < len(odd.ranks) for token in odd.encode(code + product_token(code)))


@pytest.mark.parametrize(
    ("products", "message"),
    [
        (["22423", "71053", "22423"], "two tokens would be called <|22423|>"),
        (["22423", "basket"], "two tokens would be called <|basket|>: pass each product once, and rename"),
        (["a\ud800"], "'<|a\\ud800|>' holds a lone surrogate"),
    ],
)
def test_names_that_cannot_be_are_refused(vocabulary, products, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Vocabulary(vocabulary.ranks, products)


def test_ranks_that_make_no_encoding_are_refused(vocabulary):
    with pytest.raises(ValueError, match="0, 1, 2"):
        Vocabulary({token: rank + 1 for token, rank in vocabulary.ranks.items()})
    lacking = [token for token in vocabulary.ranks if token != b"\xff"]
    with pytest.raises(ValueError, match=r"each byte needs a token.*\[255\]"):
        Vocabulary({token: rank for rank, token in enumerate(lacking)})


def test_the_fingerprint_knows_every_change(vocabulary):
    same = Vocabulary(dict(vocabulary.ranks), np.array(CODES))
    assert same.fingerprint == vocabulary.fingerprint and same == vocabulary and hash(same) == hash(vocabulary)
    swapped = dict(vocabulary.ranks) | {b"a": vocabulary.ranks[b"b"], b"b": vocabulary.ranks[b"a"]}
    others = [
        Vocabulary(vocabulary.ranks, CODES[::-1]),
        Vocabulary(vocabulary.ranks, CODES[:2]),
        Vocabulary(vocabulary.ranks, CODES, CONTROL_TOKENS[:-1]),
        Vocabulary(swapped, CODES),
    ]
    assert len({vocabulary.fingerprint, *(other.fingerprint for other in others)}) == 5


# ---- on disk -------------------------------------------------------------------------------------------------------


def test_save_and_load(vocabulary, tmp_path):
    vocabulary.save(tmp_path / "new" / "vocabulary.json")
    again = Vocabulary.load(tmp_path / "new" / "vocabulary.json")
    assert again == vocabulary and again.fingerprint == vocabulary.fingerprint
    assert again.encode(TEXTS[0]) == vocabulary.encode(TEXTS[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["vocabulary.json"]


def damaged(content: dict, change: str) -> bytes:
    """A saved vocabulary with one thing wrong."""
    text = json.dumps(content)
    changes = {
        "nothing": b"",
        "cut short": text[:-40].encode(),
        "not JSON": b"\xff\xfe\x00",
        "a list": b"[1, 2]",
        "no tokens": json.dumps({key: value for key, value in content.items() if key != "tokens"}).encode(),
        "tokens of another kind": json.dumps(content | {"tokens": 5}).encode(),
        "a token that is not hex": json.dumps(content | {"tokens": ["zz", *content["tokens"][1:]]}).encode(),
        "a token less": json.dumps(content | {"tokens": content["tokens"][:-1]}).encode(),
        "two products swapped": json.dumps(content | {"products": content["products"][::-1]}).encode(),
        "a newer format": json.dumps(content | {"format": 2}).encode(),
    }
    return changes[change]


CHANGES = ["nothing", "cut short", "not JSON", "a list", "no tokens", "tokens of another kind"]
CHANGES += ["a token that is not hex", "a token less", "two products swapped", "a newer format"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_vocabulary_is_refused_by_name(vocabulary, tmp_path, change):
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    path.write_bytes(damaged(json.loads(path.read_text()), change))
    with pytest.raises(ValueError, match=r"vocabulary\.json does not hold a vocabulary .* build it again"):
        Vocabulary.load(path)


def test_a_whole_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with storage.whole_file(path) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with pytest.raises(KeyboardInterrupt), storage.whole_file(path) as file:
        file.write(b"second")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_every_flipped_bit_and_every_odd_file_is_noticed(vocabulary, tmp_path):
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), len(whole) // 300 or 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"vocabulary\.json"):
            Vocabulary.load(path)
    numbers = json.dumps(json.loads(whole) | {"specials": [1, 2]}).encode()
    for odd in (b"[" * 100_000, numbers, b"3", b""):
        path.write_bytes(odd)
        with pytest.raises(ValueError, match=r"vocabulary\.json does not hold a vocabulary"):
            Vocabulary.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"vocabulary\.json is no file"):
        Vocabulary.load(path)


def test_letters_are_those_of_the_library():
    assert set(letter_bytes()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    assert sorted(letter_bytes().values()) == list(range(256))
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ((letters, _),) = level.pre_tokenize_str("é \n!")
    assert bytes(letter_bytes()[letter] for letter in letters).decode() == "é \n!"
