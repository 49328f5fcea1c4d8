"""Labels: many at once as one at a time, blind to the future; JSON Lines whole, or the fault named; text by hand."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.ranking.test_features import CODES, CUT, DAY, Oracle, encode, made_up

pytest.importorskip("torch")
pytest.importorskip("lightgbm")

from recbook.baselines import evaluation
from recbook.distillation import labels
from recbook.distillation.labels import Label
from recbook.lora.pairs import encode_pairs
from recbook.ranking.candidates import Snapshot
from recbook.ranking.features import COUNTED_FEATURES, CandidateFeatures
from recbook.ranking.lambdarank import (
    LambdaRank,
    LambdaRankConfig,
    ranking_examples,
)
from recbook.ranking.rankers import Shopper
from recbook.tokens.documents import Control, Product
from recbook.tokens.vocabulary import Vocabulary, learn_bpe

A, B, C = CODES[:3].tolist()
ONE = Label([(CUT - 9 * DAY, [A, B]), (CUT - 2 * DAY, [A])], CUT, [B, C, A], [2.0, 0.5, 0.5], [C], "France")


def some_stay_away() -> pd.DataFrame:
    """Receipts in which every third shopper does not come back after the cut."""
    receipts = made_up()
    return receipts[(receipts["date"] < CUT) | (receipts["customer"] % 3 > 0)].reset_index(drop=True)


@pytest.fixture(scope="module")
def shop():
    """A split, its features, and a LambdaRank of a month earlier, blended with a stand-in for the GPT."""
    receipts, made = some_stay_away(), []
    for cut, until in ((CUT - 30 * DAY, CUT), (CUT, CUT + 40 * DAY)):
        split = evaluation.next_basket(receipts[receipts["date"] < until], cut, min_shoppers=3)
        made.append((split, CandidateFeatures(Snapshot(split, Oracle(split.codes), encode=encode), split)))
    (past, before), (split, today) = made
    settings = LambdaRankConfig(trees=20, leaves=7, min_leaf_fraction=0.004)
    ranker = LambdaRank.fit([ranking_examples(before, past)], COUNTED_FEATURES, settings, today)
    return split, today, ranker.with_gpt(0.5)


@pytest.fixture(scope="module")
def everybody(shop) -> list[Label]:
    split, features, ranker = shop
    return labels.label_snapshot(ranker, features, 6, later=split)


def owners(split: evaluation.Split) -> list[int]:
    return sorted(split.receipts["customer"].unique())


# --- Labelling -----------------------------------------------------------------------------------------------------


def test_everybody_with_a_history_is_labelled_with_what_they_bought(shop, everybody):
    split = shop[0]
    assert len(everybody) == len(owners(split)) > len(split.shoppers)
    for customer, label in zip(owners(split), everybody, strict=True):
        own = split.receipts[split.receipts["customer"] == customer]
        history = [(date, sorted(lines["code"])) for date, lines in own.groupby("date")]
        assert [(date, sorted(codes)) for date, codes in label.history] == history and label.asked == split.cut


def test_offline_labels_are_those_of_online_requests(shop, everybody):
    split, _, ranker = shop
    every = [split.codes.tolist()] * 2
    alone = labels.label_requests(ranker, [everybody[row].shopper for row in (0, 7)], every, 6)
    for row, label in zip((0, 7), alone, strict=True):
        assert label.recommendations == everybody[row].recommendations
        assert np.allclose(label.scores, everybody[row].scores) and label.history == everybody[row].history


def test_blocks_of_shoppers_change_nothing(shop, everybody):
    split, features, ranker = shop
    again = labels.label_snapshot(ranker, features, 6, later=split, at_once=7)
    assert [(a.history, a.recommendations, a.action) for a in again] == [
        (a.history, a.recommendations, a.action) for a in everybody
    ]


def test_actions_are_the_next_baskets_of_those_who_came_back(shop, everybody):
    split = shop[0]
    for customer, label in zip(owners(split), everybody, strict=True):
        row = np.flatnonzero(split.shoppers == customer)
        bought = split.codes[split.targets.toarray()[row[0]]].tolist() if len(row) else None
        assert label.action == bought
    assert any(label.action is None for label in everybody)


def test_the_last_baskets_are_dropped(shop, everybody):
    _, features, ranker = shop
    cut_short = labels.label_snapshot(ranker, features, 6, dropped=2)
    longer = [label for label in everybody if len(label.history) > 2]
    assert [label.history for label in cut_short] == [label.history[:-2] for label in longer]
    assert all(label.action is None and label.asked == CUT for label in cut_short)
    assert labels.label_snapshot(ranker, features, 6, dropped=99) == []
    with pytest.raises(ValueError, match="cut short"):
        labels.label_snapshot(ranker, features, 6, dropped=1, later=shop[0])


def test_a_label_is_blind_to_what_comes_later(shop, everybody):
    """Another future, and the same labels: only the actions are others."""
    split, _, ranker = shop
    receipts = some_stay_away()
    after = receipts["date"] >= CUT
    receipts.loc[after, "code"] = np.random.default_rng(3).permutation(receipts.loc[after, "code"])
    other = evaluation.next_basket(receipts, CUT, min_shoppers=3)
    features = CandidateFeatures(Snapshot(other, Oracle(other.codes), encode=encode), other)
    again = labels.label_snapshot(ranker, features, 6, later=other)
    assert [replace(label, action=None) for label in again] == [replace(label, action=None) for label in everybody]
    assert [label.action for label in again] != [label.action for label in everybody]


def test_any_ranker_can_be_the_teacher():
    class Alphabet:
        """The last code first."""

        def score(self, shopper, query, candidates):
            return np.array([float(code) for code in candidates])

    made = labels.label_requests(Alphabet(), [Shopper(ONE.history, CUT, "France")], [[B, C, A]], 2)
    assert made == [Label(ONE.history, CUT, [C, B], [float(C), float(B)], None, "France")]

    class Broken(Alphabet):
        def score(self, shopper, query, candidates):
            return np.full(len(candidates), np.nan)

    with pytest.raises(ValueError, match="not all finite"):
        labels.label_requests(Broken(), [Shopper([], CUT)], [[A]])


# --- On disk -------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path, everybody):
    logged = replace(ONE, viewed=(A, B), added=(C,))
    assert labels.write_labels(tmp_path / "l.jsonl", [ONE, logged, *everybody]) == 2 + len(everybody)
    assert labels.read_labels(tmp_path / "l.jsonl", CODES) == [ONE, logged, *everybody]
    first = json.loads((tmp_path / "l.jsonl").read_text().splitlines()[1])
    assert first == {
        "user_browsing_history": [["2011-04-22T00:00:00", [A, B]], ["2011-04-29T00:00:00", [A]]],
        "asked": "2011-05-01T00:00:00",
        "llm_recommendations": [B, C, A],
        "scores": [2.0, 0.5, 0.5],
        "user_action": [C],
        "country": "France",
    }


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    labels.write_labels(tmp_path / "l.jsonl", [ONE])
    with pytest.raises(ValueError):
        labels.write_labels(tmp_path / "l.jsonl", [ONE, ONE, replace(ONE, scores=[np.nan] * 3)])
    assert labels.read_labels(tmp_path / "l.jsonl") == [ONE] and len(list(tmp_path.iterdir())) == 1


DAMAGE = {
    "not JSON": ("{", "not JSON"),
    "a list": ("[]", "this is a list"),
    "no scores": ({"scores": None}, "scores is no list of finite numbers"),
    "a field short": ({"asked": ...}, "asked is missing"),
    "no date": ({"asked": "soon"}, "asked has 'soon' for a date"),
    "a number as date": ({"asked": 7}, "asked has 7 for a date"),
    "a zone": ({"asked": "2011-05-01T00:00:00+02:00"}, "in the time of the shop"),
    "no pairs": ({"user_browsing_history": [[A, B, C]]}, "user_browsing_history is no list of pairs"),
    "no codes": ({"user_browsing_history": [["2011-04-01", A]]}, "user_browsing_history is no list of codes"),
    "out of order": (
        {"user_browsing_history": [["2011-04-02", [A]], ["2011-04-01", [A]]]},
        "out of order; put the oldest",
    ),
    "the future": ({"user_browsing_history": [["2011-05-02", [A]]]}, "none after asked"),
    "fewer scores": ({"scores": [1.0]}, "llm_recommendations holds 3 and scores 1"),
    "nothing": ({"scores": [], "llm_recommendations": []}, "give one or more"),
    "twice": ({"llm_recommendations": [A, B, A]}, f"names '{A}' twice"),
    "a word": ({"scores": [1.0, "x", 0.0]}, "no list of finite numbers"),
    "true": ({"scores": [True, 0.5, 0.0]}, "no list of finite numbers"),
    "not finite": ({"scores": [float("inf"), 1.0, 0.0]}, "no list of finite numbers"),
    "too large": ({"scores": [10**400, 1.0, 0.0]}, "no list of finite numbers"),
    "rising": ({"scores": [1.0, 2.0, 0.0]}, "rises after place 1; sort"),
    "unknown": ({"llm_recommendations": ["99999", B, A]}, "'99999', which the catalogue lacks"),
    "unknown in the history": ({"user_browsing_history": [["2011-04-01", ["9"]]]}, "'9', which the catalogue lacks"),
    "unknown action": ({"user_action": ["9"]}, "user_action names '9'"),
    "views": ({"user_viewed": A}, "user_viewed is no list of codes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_wrong_is_named_by_line_and_field(tmp_path, damage):
    what, message = DAMAGE[damage]
    labels.write_labels(tmp_path / "l.jsonl", [ONE])
    if isinstance(what, dict):
        fields = json.loads((tmp_path / "l.jsonl").read_text().splitlines()[1]) | what
        what = json.dumps({name: value for name, value in fields.items() if value is not ...}, default=str)
    with (tmp_path / "l.jsonl").open("a") as file:
        file.write("\n" + what + "\n")
    with pytest.raises(ValueError, match=r"l\.jsonl, line 5: ") as raised:
        labels.read_labels(tmp_path / "l.jsonl", CODES)
    assert message in str(raised.value)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "l.jsonl"
    labels.write_labels(path, [ONE, ONE])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"l\.jsonl, line [1234]: .*(;|:)"):
            labels.read_labels(path)


def test_a_line_that_is_lost_and_an_empty_file_are_noticed_and_two_files_in_one_are_fine(tmp_path):
    path = tmp_path / "l.jsonl"
    labels.write_labels(path, [ONE, ONE])
    whole = path.read_bytes()
    path.write_bytes(whole * 2)
    assert labels.read_labels(path) == [ONE] * 4
    for content, message in [
        (whole.replace(whole.splitlines(keepends=True)[1], b"", 1), "checksum"), (b"", "is empty"),
        (b"".join(whole.splitlines(keepends=True)[:2]), "is cut short"), (b"[" * 100_000, "not JSON"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            labels.read_labels(path)
    labels.write_labels(path, [])
    assert labels.read_labels(path) == []


def test_labels_are_their_owners_alone(tmp_path):
    labels.write_labels(tmp_path / "l.jsonl", [ONE])
    assert (tmp_path / "l.jsonl").stat().st_mode & 0o077 == 0


def test_dates_need_no_time_and_fields_that_may_lack_do(tmp_path):
    line = {"user_browsing_history": [], "asked": "2011-05-01", "llm_recommendations": ["X"], "scores": [1]}
    (tmp_path / "l.jsonl").write_text(json.dumps(line))
    assert labels.read_labels(tmp_path / "l.jsonl") == [Label([], pd.Timestamp("2011-05-01"), ["X"], [1.0])]


# --- As text -------------------------------------------------------------------------------------------------------


def test_a_label_as_text():
    names = {A: "WHITE MUG", B: "Blue Plate"}
    prompt, answer = labels.label_documents(replace(ONE, viewed=(C, B), added=(C,)), names, most=2, k=2)
    assert prompt == [
        Control("<|shopper|>"), " User", " viewed", Product(C), f" {C}", ";", Product(B), " Blue Plate",
        ", added", Product(C), f" {C}", ", purchased", Product(B), " Blue Plate", ";", Product(A), " white mug", ".",
        Control("<|answer|>"),
    ]  # fmt: skip
    assert answer == [" Recommend:", Product(B), " Blue Plate", ";", Product(C), f" {C}", "."]


def test_kinds_that_were_not_logged_are_left_out():
    prompt, _ = labels.label_documents(ONE, {})
    assert [part for part in prompt if isinstance(part, str)] == [
        " User", " purchased", f" {B}", ";", f" {A}", ".",
    ]  # fmt: skip
    assert labels.label_documents(replace(ONE, history=[]), {})[0][1:3] == [" User", " is new."]


def test_the_text_makes_batches_in_which_only_answers_count():
    vocabulary = Vocabulary(learn_bpe(["User purchased white mug. Recommend: mug"], 300), [A, B, C])
    prompts, answers = zip(*(labels.label_documents(ONE, {A: "mug <|end|>"}) for _ in range(2)), strict=True)
    made = encode_pairs(prompts, answers, vocabulary)
    assert vocabulary.decode(made.answers[0]).startswith(f" Recommend:<|{B}|>")
    assert made.prompts[0].count(vocabulary.control["<|end|>"]) == 0  # a name is text, whatever it spells
    inputs, targets = made.batch(0, 2)
    assert (targets >= 0).sum() == 2 * len(made.answers[0]) and inputs.shape == targets.shape
