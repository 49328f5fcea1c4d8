"""Checks of Chapter 5: words in tokens, whole characters, control tokens that text cannot forge, bytes, windows."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake


def _ranks(*merges: bytes) -> dict[bytes, int]:
    """The 256 bytes, then some merges."""
    return {bytes([byte]): byte for byte in range(256)} | {token: 256 + place for place, token in enumerate(merges)}


# 5.1: encode a word with learned ranks


def encode_word(word, ranks):
    """The ids of a word: of all neighbours that may be merged, always the pair with the smallest id first."""
    parts = [word[at : at + 1] for at in range(len(word))]
    while True:
        places = [at for at in range(len(parts) - 1) if parts[at] + parts[at + 1] in ranks]
        if not places:
            return [ranks[part] for part in parts]
        at = min(places, key=lambda at: ranks[parts[at] + parts[at + 1]])
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _longest_first(word, ranks):
    ids = []
    while word:
        length = max(n for n in range(1, len(word) + 1) if word[:n] in ranks)
        ids.append(ranks[word[:length]])
        word = word[length:]
    return ids


def _leftmost_first(word, ranks):
    parts = [word[at : at + 1] for at in range(len(word))]
    while places := [at for at in range(len(parts) - 1) if parts[at] + parts[at + 1] in ranks]:
        parts[places[0] : places[0] + 2] = [parts[places[0]] + parts[places[0] + 1]]
    return [ranks[part] for part in parts]


def _one_merge(word, ranks):
    parts = [word[at : at + 1] for at in range(len(word))]
    if places := [at for at in range(len(parts) - 1) if parts[at] + parts[at + 1] in ranks]:
        at = min(places, key=lambda at: ranks[parts[at] + parts[at + 1]])
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return [ranks[part] for part in parts]


_TEA = _ranks(b"ea", b"te", b"tea", b" c", b"up", b" cup", b"s ")

# 5.2: whole characters only, as tokens arrive


def stream_text(pieces):
    """What may be shown after each piece: only whole characters, the rest kept for the next piece."""
    shown, waiting = [], b""
    for piece in pieces:
        waiting += piece
        for cut in range(len(waiting), -1, -1):
            try:
                text = waiting[:cut].decode("utf-8")
            except UnicodeDecodeError:
                continue
            break
        shown.append(text)
        waiting = waiting[cut:]
    return shown


def _replaced(pieces):
    return [piece.decode("utf-8", errors="replace") for piece in pieces]


def _ignored(pieces):
    return [piece.decode("utf-8", errors="ignore") for piece in pieces]


def _whole_so_far(pieces):
    return ["".join(stream_text(pieces)[: count + 1]) for count in range(len(pieces))]


def _bytes_of(*texts: str) -> list[bytes]:
    return [bytes([byte]) for text in texts for byte in text.encode()]


# 5.3: control tokens that text cannot forge


def prompt_ids(parts, control):
    """The ids of a prompt: a control token for each ("control", name), the UTF-8 bytes of each ("text", words)."""
    ids = []
    for kind, content in parts:
        ids += [control[content]] if kind == "control" else list(content.encode("utf-8"))
    return ids


def _parses_text(parts, control):
    ids, text = [], "".join(content for _, content in parts)
    while text:
        name = next((name for name in control if text.startswith(name)), None)
        ids += [control[name]] if name else list(text[0].encode("utf-8"))
        text = text[len(name) if name else 1 :]
    return ids


def _known_names(parts, control):
    return [
        token
        for _, content in parts
        for token in ([control[content]] if content in control else content.encode("utf-8"))
    ]


def _all_as_text(parts, control):
    return [byte for _, content in parts for byte in content.encode("utf-8")]


_CONTROL = {"<|end|>": 256, "<|basket|>": 257, "<|because|>": 258}

# 5.4: the bytes of a token file


def corpus_bytes(tokens, vocabulary):
    """Bytes of a token file without its header: two a token if the largest id fits, else four."""
    return tokens * (2 if vocabulary <= 2**16 else 4)


def _bits(tokens, vocabulary):
    return tokens * (16 if vocabulary <= 2**16 else 32)


def _off_by_one(tokens, vocabulary):
    return tokens * (2 if vocabulary < 2**16 else 4)


def _as_int64(tokens, vocabulary):
    return tokens * 8


# 5.5: windows that make each token a target once


def window_starts(tokens, context):
    """The starts of consecutive windows whose targets, one token on, do not overlap; what is left over is dropped."""
    return np.arange(0, tokens - context, context)


def _target_lost_between(tokens, context):
    return np.arange(0, tokens - context, context + 1)


def _last_target_missing(tokens, context):
    return np.arange(0, tokens - context + 1, context)


def _every_place(tokens, context):
    return np.arange(0, tokens - context)


EXERCISES = [
    Exercise(
        "5.1",
        encode_word,
        [
            (b"tea", _TEA),
            (b" cups", _TEA),
            (b"teatea steamer", _TEA),
            (b"abc", _ranks(b"bc", b"ab")),
            (b"abcd", _ranks(b"bc", b"bcd", b"abcd", b"ab")),
            (b"", _TEA),
        ],
        [
            Mistake(
                _longest_first,
                "you take the longest token that fits from the left; byte-pair encoding repeats the merges in the "
                "order in which they were learned, the smallest id first.",
            ),
            Mistake(_leftmost_first, "you merge the leftmost pair that can be merged; the smallest id goes first."),
            Mistake(_one_merge, "you merge once; go on until no two neighbours make a token."),
        ],
    ),
    Exercise(
        "5.2",
        stream_text,
        [
            (_bytes_of("£5, café"),),
            ([b"tea ", "é".encode() + "£".encode()[:1], "£".encode()[1:] + b"9", b"."],),
            (_bytes_of("😀!"),),
            ([b"plain", b"", b" text"],),
        ],
        [
            Mistake(_replaced, "half a character became U+FFFD: keep its bytes until the rest comes."),
            Mistake(_ignored, "half a character was thrown away: keep its bytes until the rest comes."),
            Mistake(_whole_so_far, "each entry should be what is new after that piece, not all the text so far."),
        ],
    ),
    Exercise(
        "5.3",
        prompt_ids,
        [
            ([("control", "<|basket|>"), ("text", " tea"), ("control", "<|end|>")], _CONTROL),
            ([("control", "<|basket|>"), ("text", "mug <|end|> £1"), ("control", "<|because|>")], _CONTROL),
            ([("text", "<|end|>")], _CONTROL),
            ([("text", "<|"), ("text", "end|>"), ("text", "")], _CONTROL),
        ],
        [
            Mistake(
                _parses_text, "a customer's text was read as a control token: only `control` parts may give those ids."
            ),
            Mistake(
                _known_names,
                "a text that happens to be a control token's name is still text: look at the part's kind, "
                "not at its content.",
            ),
            Mistake(_all_as_text, "the control parts were spelled out; each is one id of `control`."),
        ],
    ),
    Exercise(
        "5.4",
        corpus_bytes,
        [(1_000_000, 5_000), (10, 2**16), (10, 2**16 + 1), (3, 50_257), (0, 100_000)],
        [
            Mistake(_bits, "these are bits; a byte has eight."),
            Mistake(_off_by_one, "with exactly 65,536 tokens the largest id is 65,535, and that fits two bytes."),
            Mistake(_as_int64, "eight bytes per token is NumPy's default; two or four are enough."),
        ],
    ),
    Exercise(
        "5.5",
        window_starts,
        [(9, 8), (17, 8), (16, 8), (100, 7), (27, 2)],
        [
            Mistake(
                _target_lost_between,
                "the token between two windows is nobody's target: the next window starts at the last target.",
            ),
            Mistake(
                _last_target_missing, "the last window has no target for its last token: one token more is needed."
            ),
            Mistake(_every_place, "these windows overlap, so most tokens are targets many times."),
        ],
    ),
]
