"""Any causal language model of Hugging Face's as a ranker, by name or folder: its logits score, nothing is generated.

*Pointwise*: one prompt per candidate, and the log-odds of Yes to No. *Listwise*: all candidates in one prompt, each
behind a letter, and the logits of the letters as the first token of the answer. The well-known notebooks on this use
`google/gemma-2b-it`. Nogueira et al. (2020); Zhuang et al. (2024); Gangi Reddy et al. (2024).
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
import torch

from recbook.llm_ranking import prompts
from recbook.llm_ranking.prompts import Message
from recbook.ranking.rankers import Shopper
from recbook.training.distributed import available_device

GEMMA = "google/gemma-2b-it"
SAFE_OPTIONS = {"trust_remote_code": False}  # explicit, or transformers asks at the keyboard
CANDIDATE_LETTERS = ascii_uppercase + ascii_lowercase  # labels of candidates
YES_WORDS, NO_WORDS = ("Yes", "yes", "YES"), ("No", "no", "NO")
CAUSAL_CLASSES = (
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
)  # ends of the names of architectures that can rank


class ModelNotLoaded(RuntimeError):
    """A model could not be loaded; the message says why, and what to do."""


class CausalLM(NamedTuple):
    """A causal language model with the tokenizer that belongs to it."""

    network: Any  # of transformers, in evaluation mode
    tokenizer: Any

    @property
    def positions(self) -> int:
        """How many tokens a prompt may have."""
        stated = [getattr(self.network.config, name, None) for name in ("max_position_embeddings", "n_positions")]
        return min([self.tokenizer.model_max_length, *(number for number in stated if number)])


# --- Loading -----------------------------------------------------------------------------------------------------


def load_causal_lm(name: str | Path = GEMMA, device: str | None = None) -> CausalLM:
    """The model of that name on the Hugging Face hub, or in that folder: on a GPU where there is one.

    Weights are read from safetensors alone, and no code of a model's own is run. On a GPU they keep their type, on a
    CPU they are float32. ModelNotLoaded says what went wrong: a licence to accept, a token, a network, a wrong name.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    name, device = str(name), str(available_device(device))
    is_path = Path(name).is_dir()
    if not is_path and (name.startswith((".", "/", "~", "\\")) or name.count("/") > 1):
        raise ModelNotLoaded(f"there is no folder {name}: give one that holds a model, or a name such as {GEMMA}")
    try:
        config = AutoConfig.from_pretrained(name, **SAFE_OPTIONS)
        _check_causal(name, config)
        tokenizer = AutoTokenizer.from_pretrained(name, **SAFE_OPTIONS)
        network: torch.nn.Module = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **SAFE_OPTIONS)
    except ModelNotLoaded:
        raise
    except Exception as error:  # of three libraries, which change with their versions
        raise ModelNotLoaded(f"{name} could not be loaded: {_why(error, name, is_path)}") from error
    kept = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)  # the older name
    kind = kept if device.startswith("cuda") and isinstance(kept, torch.dtype) else torch.float32
    return CausalLM(network.to(device, kind).eval(), tokenizer)


def _check_causal(name: str, config: Any) -> None:
    """ModelNotLoaded unless the configuration is that of a causal language model."""
    kinds = getattr(config, "architectures", None) or []
    if (
        getattr(config, "is_encoder_decoder", False)
        or kinds
        and not any(kind.endswith(CAUSAL_CLASSES) for kind in kinds)
    ):
        what = ", ".join(kinds) or "an encoder with a decoder"
        raise ModelNotLoaded(
            f"{name} is no causal language model but {what}: give one that writes text, such as {GEMMA}"
        )


def _why(error: BaseException, name: str, is_path: bool) -> str:
    """What went wrong in plain words, and what to do about it."""
    causes = list(_causes(error))
    kinds, text = {kind.__name__ for each in causes for kind in type(each).__mro__}, " ".join(map(str, causes))
    page, log_in = f"https://huggingface.co/{name}", "log in with `hf auth login` or set HF_TOKEN"
    if "trust_remote_code" in text:
        return "it needs code of its own to be run, which is not done here; choose a model that transformers knows"
    if is_path:
        return f"{text.splitlines()[0][:300]}. The folder must hold config.json, a tokenizer and *.safetensors"
    if "GatedRepoError" in kinds:
        return f"its licence must be accepted first: do so on {page}, then {log_in} with a token that may read it"
    if "OfflineModeIsEnabled" in kinds:
        return "it is not in the cache, and the hub is switched off: unset HF_HUB_OFFLINE, or give a folder"
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return f"the hub has no such model, or you may not see it: look at {page}, and if it is private, {log_in}"
    if "401" in text or "403" in text:
        return f"the hub refused the token: {log_in} with one that may read it"
    if kinds & {"LocalEntryNotFoundError", "ConnectionError", "ConnectError", "TimeoutException", "Timeout"}:
        return "it is not in the cache, and the hub cannot be reached: connect, or give a folder that holds it"
    if "safetensors" in text:
        return "it has no safetensors, and other files may run code when they are read: choose one that has"
    return text.splitlines()[0][:300] if text else type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# --- From messages to logits -------------------------------------------------------------------------------------


def render_chat(messages: Sequence[Message], tokenizer: Any) -> tuple[str, bool]:
    """The text of a chat up to where the answer begins, and whether the model's own template made it.

    Where a template refuses a system message, as Gemma's does, or leaves it out, the user's message begins with it.
    Without a template the text is that of the messages and "Answer:".
    """
    if not getattr(tokenizer, "chat_template", None):
        return "\n\n".join(each["content"] for each in messages) + "\n\nAnswer:", False
    system, user = messages[0]["content"], messages[-1]["content"]
    how = dict(tokenize=False, add_generation_prompt=True)
    try:
        text = tokenizer.apply_chat_template(list(messages), **how)
        refused = system not in text
    except Exception:  # what templates raise is jinja's, by way of transformers
        refused = True
    if refused:
        text = tokenizer.apply_chat_template([{"role": "user", "content": f"{system}\n\n{user}"}], **how)
    return text, True


def encode_chat(messages: Sequence[Message], tokenizer: Any) -> list[int]:
    """The token ids of a chat up to where the answer begins; a template writes its own beginning-of-text token."""
    text, templated = render_chat(messages, tokenizer)
    return tokenizer.encode(text, add_special_tokens=not templated, verbose=False)  # longer ones are shortened


def first_token(word: str, tokenizer: Any, opening: str) -> int | None:
    """The first token of `word` where it follows `opening`; None if it would merge with what is before."""
    before = tokenizer.encode(opening, add_special_tokens=False)
    after = tokenizer.encode(opening + word, add_special_tokens=False)
    return after[len(before)] if after[: len(before)] == before and len(after) > len(before) else None


@torch.inference_mode()
def next_logits(model: CausalLM, texts: Sequence[Sequence[int]], batch: int = 8) -> np.ndarray:
    """The logits of the token after each text, (texts, vocabulary) float32. Texts of any length, `batch` at a time."""
    network, pad = model.network, model.tokenizer.pad_token_id or 0
    takes, found = inspect.signature(network.forward).parameters, []
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        length = max(map(len, part))
        ids = torch.tensor([[pad] * (length - len(text)) + list(text) for text in part])  # padded on the left
        mask = torch.tensor([[0] * (length - len(text)) + [1] * len(text) for text in part])
        more = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if "position_ids" in takes else {}
        given = {"input_ids": ids, "attention_mask": mask, **more}
        only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}  # the head is the largest matrix
        out = network(**{key: tensor.to(network.device) for key, tensor in given.items()}, **only, use_cache=False)
        found.append(out.logits[:, -1].float().cpu().numpy())
    return np.concatenate(found)


# --- Rankers -----------------------------------------------------------------------------------------------------


class PointwiseRanker:
    """A ranker: the log-odds of Yes to No, for each candidate by itself: as many prompts as candidates."""

    def __init__(self, model: CausalLM, names: Mapping[str, str], batch: int = 8):
        """`names`: descriptions by code. ValueError if the model cannot say Yes and No in tokens that differ."""
        self.model, self.names, self.batch = model, names, batch
        opening = render_chat(prompts.chat_messages("", "", ""), model.tokenizer)[0]
        yes, no = (_first_tokens(words, model.tokenizer, opening) for words in (YES_WORDS, NO_WORDS))
        self.yes, self.no = sorted(yes - no), sorted(no - yes)  # a token that begins both, such as a lone space, is out
        if not self.yes or not self.no:
            raise ValueError("this model's Yes and No begin with the same token, so no logit tells them apart")

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`."""
        if not len(candidates):
            return np.zeros(0)
        logits = next_logits(self.model, [self.prompt(shopper, query, code) for code in candidates], self.batch)
        return np.logaddexp.reduce(logits[:, self.yes], axis=1) - np.logaddexp.reduce(logits[:, self.no], axis=1)

    def prompt(self, shopper: Shopper, query: str | None, candidate: str) -> list[int]:
        """The token ids of one candidate's prompt; the oldest purchases are left out where there are too many."""
        product = f"Product: {prompts.name_of(candidate, self.names)}"

        def make(most: int) -> list[int]:
            text = prompts.shopper_in_words(shopper, query, self.names, most)
            return encode_chat(prompts.chat_messages(text, product, prompts.POINTWISE_QUESTION), self.model.tokenizer)

        return prompts.shortened(make, self.model.positions)


class ListwiseRanker:
    """A ranker: the logits of the candidates' letters as the first token of the answer: one prompt for all."""

    def __init__(self, model: CausalLM, names: Mapping[str, str], rotations: int = 1, batch: int = 8):
        """`rotations`: how many prompts, each with the list rotated further, whose log-probabilities are averaged.

        A model prefers some places; with as many rotations as candidates, each candidate stands once at each place.
        """
        if rotations < 1:
            raise ValueError(f"rotations is {rotations}; the list must be shown at least once")
        self.model, self.names, self.rotations, self.batch = model, names, rotations, batch
        opening, templated = render_chat(prompts.chat_messages("", "", ""), model.tokenizer)
        tokens = [
            first_token(letter if templated else f" {letter}", model.tokenizer, opening) for letter in CANDIDATE_LETTERS
        ]
        self.tokens = [token for token in tokens if token is not None]
        if len(set(self.tokens)) < len(CANDIDATE_LETTERS):
            raise ValueError("this model's tokenizer has no token of its own for each letter: use PointwiseRanker")

    def score(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> np.ndarray:
        """See `Ranker.score`; ValueError for more than 52 candidates: there are no more letters."""
        if not len(candidates):
            return np.zeros(0)
        count, rotations = len(candidates), min(self.rotations, len(candidates))
        orders = [np.roll(np.arange(count), -turn * count // rotations) for turn in range(rotations)]
        texts = [self.prompt(shopper, query, [candidates[place] for place in order.tolist()]) for order in orders]
        logits = next_logits(self.model, texts, self.batch)[:, self.tokens[:count]]  # (rotations, candidates)
        scores = np.zeros(count)
        for order, row in zip(orders, logits.astype(np.float64), strict=True):
            scores[order] += (row - np.logaddexp.reduce(row)) / rotations
        return scores

    def prompt(self, shopper: Shopper, query: str | None, candidates: Sequence[str]) -> list[int]:
        """The token ids of the prompt with the candidates in this order."""
        lines = prompts.candidate_lines(candidates, CANDIDATE_LETTERS, self.names)

        def make(most: int) -> list[int]:
            text = prompts.shopper_in_words(shopper, query, self.names, most)
            return encode_chat(prompts.chat_messages(text, lines, prompts.LISTWISE_QUESTION), self.model.tokenizer)

        return prompts.shortened(make, self.model.positions)


def _first_tokens(words: Sequence[str], tokenizer: Any, opening: str) -> set[int]:
    """The first tokens of answers with these words, with a space before the word or without."""
    found = {first_token(space + word, tokenizer, opening) for word in words for space in ("", " ")}
    return {token for token in found if token is not None}
