"""batches, network, model: against loops by hand and scaled_dot_product_attention; nothing of the future is seen.

What is fitted here is a shop of thirty products whose shoppers buy again what they bought, in seconds.
"""

import json
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from recbook import storage
from recbook.baselines import evaluation, models
from recbook.baskets import model as basket_model
from recbook.baskets.batches import BasketWindows, NextBasketLoss
from recbook.baskets.features import ITEM_FEATURES, USER_COUNTED, USER_FEATURES, USER_ITEM_FEATURES, on_sale_from
from recbook.baskets.log import DAY, InteractionLog, interaction_log, log_of_histories, prediction_points
from recbook.baskets.model import (
    BASKET_GPT_CONFIG,
    BASKET_GPT_KIND,
    BASKET_GPT_WEIGHTS,
    SCORED_AT_ONCE,
    BasketGPT,
    basket_gpt_scores,
    log_odds,
    product_vectors,
    scores_at_cut,
)
from recbook.baskets.network import NETWORK_PARTS, BasketGPTConfig, BasketNetwork, Standardize
from recbook.baskets.shop_features import RELATED_FEATURES, FeatureBatch, ShopFeatures
from recbook.gpt.config import GPTConfig

COLOURS, THINGS = ("RED", "BLUE", "GREEN", "WHITE", "BLACK"), ("MUG", "PLATE", "BOWL", "LAMP", "CLOCK", "FRAME")
NAMES = {f"{20001 + 7 * n}": f"{COLOURS[n % 5]} {THINGS[n // 5]}" for n in range(30)}
CODES = list(NAMES)
ORIGIN = pd.Timestamp("2011-01-01")
SMALL = BasketGPTConfig(
    context=32, layers=1, heads=2, width=16, dropout=0.1, pointer=16, features=8, epochs=12, learning_rate=1e-2, 
    start=30, min_shoppers=3, nearest=8, solved=25, refresh=20,
)  # fmt: skip
BRIEF = replace(SMALL, epochs=1)


def encode(texts: list[str]) -> np.ndarray:
    """Unit vectors of bags of words, in place of a sentence-transformer: quick, and alike where words are shared."""
    words = {word for text in texts for word in text.split()}
    axes = {word: np.random.default_rng(zlib.crc32(word.encode())).normal(0, 1, 12) for word in words}
    vectors = np.array([sum(axes[word] for word in text.split()) for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def made_up(seed: int = 0, shoppers: int = 60, days: int = 160, name: int = 7_100_000) -> pd.DataFrame:
    """Receipts of shoppers who buy two of their three favourites and something popular every three weeks or so."""
    rng = np.random.default_rng(seed)
    popular, rows = np.arange(30, 0, -1) / 465, []
    for shopper in range(shoppers):
        day, favourites = rng.uniform(0, 30), rng.choice(30, 3, replace=False)
        while day < days:
            basket = {*rng.choice(favourites, 2, replace=False), rng.choice(30, p=popular)}
            date = (ORIGIN + day * DAY).floor("min")
            rows += [(name + shopper, f"{shopper}-{day:.3f}", CODES[n], NAMES[CODES[n]], date) for n in basket]
            day += rng.uniform(10, 30)
    return pd.DataFrame(rows, columns=["customer", "invoice", "code", "description", "date"]).sort_values(
        "date", kind="stable", ignore_index=True
    )


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One thread and words' vectors made here, for all that this file fits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basket_model, "encode", encode)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def receipts() -> pd.DataFrame:
    return made_up()


@pytest.fixture(scope="module")
def split(receipts) -> evaluation.Split:
    return evaluation.next_basket(receipts, ORIGIN + 120 * DAY)


@pytest.fixture(scope="module")
def model(split) -> BasketGPT:
    return BasketGPT.fit(split.receipts, SMALL, progress=False)


@pytest.fixture(scope="module")
def wider(receipts) -> BasketGPT:
    """One that knows a product that one shopper bought, and one that was never sold."""
    rare = receipts.iloc[[500]].assign(code="30000", description="RED CANDLE")
    return BasketGPT.fit(pd.concat([receipts, rare]), BRIEF, products={"40000": "GREEN MUG CANDLE"}, progress=False)


@pytest.fixture(scope="module")
def log(receipts) -> InteractionLog:
    return interaction_log(receipts, np.array(CODES))[0]


@pytest.fixture(scope="module")
def windows(log) -> BasketWindows:
    return BasketWindows(log, prediction_points(log, 5.0, 1), np.random.default_rng(0).random(len(log.days)) < 0.5, 16)


@pytest.fixture(scope="module")
def shop_features(log) -> ShopFeatures:
    return ShopFeatures(log, product_vectors(NAMES), 20.0, 8, 25)


def untrained(shop_features: ShopFeatures, parts: frozenset = NETWORK_PARTS, layers: int = 2) -> BasketNetwork:
    """A network whose every weight is far from zero, as if it had learned."""
    config = GPTConfig(1, 16, layers, 2, 16, 0.3)
    network = BasketNetwork(torch.from_numpy(shop_features.text), config, 8, 8, parts, seed=3).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 5)
    return network


def basket(log: InteractionLog, b: int) -> list[int]:
    return log.items[log.starts[b] : log.starts[b + 1]].tolist()


def stripped(tokens: torch.Tensor, products: int = 30) -> list[tuple[int, ...]]:
    return [tuple(row[row <= products].tolist()) for row in tokens]


# --- Windows -------------------------------------------------------------------------------------------------------


def test_tokens_are_an_opening_and_the_products_of_each_basket(log, windows):
    expected = [token for b in range(len(log.days)) for token in (30, *basket(log, b))]
    assert windows.tokens.tolist() == expected
    assert windows.basket[windows.basket >= 0].tolist() == list(range(len(log.days)))
    assert (windows.tokens[windows.basket >= 0] == 30).all()


def test_an_epoch_goes_through_all_windows_once_in_an_order_of_its_own(windows):
    steps = windows.steps(2)
    alone = [windows.padded([span]) for span in windows.spans]
    wanted = Counter((stripped(tokens)[0], tuple(predicted[predicted >= 0].tolist())) for tokens, _, predicted in alone)
    assert steps > 5 and max(wanted.values()) == 1
    orders = []
    for epoch in range(2):
        batches = [windows.batch(epoch * steps + step, 2, seed=4) for step in range(steps)]
        rows = [row for tokens, _, predicted in batches for row in zip(stripped(tokens), predicted, strict=True)]
        seen = [(tokens, tuple(predicted[predicted >= 0].tolist())) for tokens, predicted in rows]
        assert Counter(seen) == wanted
        orders.append(seen)
        assert all(t.shape == b.shape == a.shape and (a >= 0).any() for t, b, a in batches)
        assert max(t.numel() for t, _, _ in batches) <= 3 * 2 * windows.context, "padding must not blow a batch up"
    assert orders[0] != orders[1]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_every_step_has_windows_whatever_the_size_of_a_batch(windows, size):
    steps = windows.steps(size)
    for seed in range(3):
        rows = [len(windows.batch(step, size, seed)[0]) for step in range(2 * steps)]
        assert sum(rows) == 2 * len(windows.spans) and min(rows) > 0


def test_batches_depend_on_step_and_seed_alone(windows):
    for mine, theirs in zip(windows.batch(3, 2, 7), windows.batch(3, 2, 7), strict=True):
        assert torch.equal(mine, theirs)
    assert any(stripped(windows.batch(s, 2, 7)[0]) != stripped(windows.batch(s, 2, 8)[0]) for s in range(3))


def test_every_basket_to_be_predicted_is_predicted_once_at_its_opening(windows):
    found = []
    for span in windows.spans:
        tokens, opens, predicted = windows.padded([span])
        assert torch.equal(tokens[opens >= 0], torch.full_like(tokens[opens >= 0], 30))
        assert torch.equal(predicted[predicted >= 0], opens[predicted >= 0])
        found += predicted[predicted >= 0].tolist()
    assert found == np.unique(windows.predicted[windows.predicted >= 0]).tolist()


def test_ends_are_windows_that_stop_where_a_basket_opens(log, windows):
    chosen = np.flatnonzero(np.isin(np.arange(len(log.days)), windows.predicted))[:40]
    tokens, opens, predicted = windows.ends(chosen)
    assert predicted[predicted >= 0].tolist() == chosen.tolist() and ((predicted >= 0).sum(1) == 1).all()
    for row, b in zip(stripped(tokens), chosen, strict=True):
        expected = [token for before in range(log.first[b], b) for token in (30, *basket(log, before))] + [30]
        assert list(row) == expected[-16:]


def test_targets_say_which_products_come_and_whether_they_came_before(log, windows):
    chosen = np.unique(windows.predicted[windows.predicted >= 0])[[5, 0, 17]]
    rows = [
        (row, item, any(item in basket(log, before) for before in range(log.first[b], b)))
        for row, b in enumerate(chosen)
        for item in basket(log, b)
    ]
    assert list(zip(*(column.tolist() for column in windows.targets(chosen)), strict=True)) == rows
    assert {again for _, _, again in rows} == {True, False}


def test_what_is_not_predicted_was_not_counted_and_is_refused(log, windows, shop_features):
    other = np.setdiff1d(np.arange(len(log.days)), windows.predicted)[:1]
    for ask in (windows.targets, lambda baskets: windows.features(baskets, shop_features)):
        with pytest.raises(ValueError, match="only for baskets that are predicted"):
            ask(other)


# --- What must not be seen -----------------------------------------------------------------------------------------


def with_another_future(log: InteractionLog, b: int) -> InteractionLog:
    """The same log, but from basket b of its shopper on with other products, and another number of them."""
    people: dict[int, list] = {}
    for place in range(len(log.days)):
        changed = place >= b and log.first[place] == log.first[b]
        items = np.array([29 - i for i in basket(log, place)] + [3, 4, 5]) if changed else np.array(basket(log, place))
        people.setdefault(int(log.first[place]), []).append((log.days[place], np.unique(items) if changed else items))
    return log_of_histories(list(people.values()), log.products, log.origin)


@pytest.mark.parametrize("b", [4, 31, 110])
def test_scores_where_a_basket_opens_know_nothing_of_it_or_of_what_follows(model, log, b):
    changed, every = with_another_future(log, b), np.arange(len(log.days))
    scores, other = model.score_log(log, every), model.score_log(changed, every)
    later = (log.first == log.first[b]) & (every > b)
    np.testing.assert_allclose(scores[~later], other[~later], atol=1e-5)
    assert later.any() and (np.abs(scores[later] - other[later]).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("b", [4, 31, 110])
def test_states_in_training_know_nothing_of_the_basket_that_opens(shop_features, log, b):
    network, found = untrained(shop_features), []
    for each in (log, with_another_future(log, b)):
        windows = BasketWindows(each, prediction_points(each, 5.0, 1), np.ones(len(each.days), bool), 16)
        tokens, opens, predicted = windows.padded(windows.spans)
        with torch.no_grad():
            states = network.states(tokens, windows.shoppers[opens])
            scores = network.scores(
                states[predicted >= 0], windows.features(predicted[predicted >= 0].numpy(), shop_features)
            )
        assert predicted[predicted >= 0].tolist() == list(range(len(each.days)))
        found.append(scores)
    mine = (log.first == log.first[b]) & (np.arange(len(log.days)) <= b)
    assert mine.sum() >= 2
    torch.testing.assert_close(found[0][mine], found[1][mine], atol=1e-5, rtol=1e-5)


# --- The loss ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objective(log) -> NextBasketLoss:
    day = prediction_points(log, 5.0, 1).day
    return NextBasketLoss(log, day, on_sale_from(log, 9), 40.0, 3.0)


def test_predicted_are_baskets_of_those_who_come_back_with_something_on_sale(log, objective):
    on_sale, day = on_sale_from(log, 9), prediction_points(log, 5.0, 1).day
    by_hand = [
        b > log.first[b] and day[b] >= 40.0 and any(on_sale[i] < day[b] for i in basket(log, b))
        for b in range(len(log.days))
    ]
    assert objective.predicted.tolist() == by_hand and 0 < sum(by_hand) < len(by_hand)


def test_the_loss_is_the_weighted_mean_by_hand(log, objective):
    windows = BasketWindows(log, prediction_points(log, 5.0, 1), objective.predicted, 16)
    returns = np.bincount(log.first[objective.predicted], minlength=len(log.days))[
        log.first
    ]  # of each basket's shopper
    chosen = [
        np.flatnonzero(objective.predicted & (returns == count))[0]
        for count in np.unique(returns[objective.predicted])[:5]
    ]
    chosen = np.array(sorted(chosen))
    assert len(chosen) > 2, "shoppers must differ in how often they come back"
    scores = torch.randn((len(chosen), 30), generator=torch.Generator().manual_seed(0))
    on_sale, day = on_sale_from(log, 9), prediction_points(log, 5.0, 1).day
    total = weights = 0.0
    for row, b in enumerate(chosen):
        open_to = [i for i in range(30) if on_sale[i] < day[b]]
        nats = torch.logsumexp(scores[row, open_to].double(), 0)
        for item in set(basket(log, b)) & set(open_to):
            again = any(item in basket(log, before) for before in range(log.first[b], b))
            weight = (3.0 if again else 1.0) / np.sqrt(len(basket(log, b)) * returns[b])
            total, weights = total + weight * float(nats - scores[row, item]), weights + weight
    loss = objective.loss(scores, chosen, *windows.targets(chosen))
    assert loss.item() == pytest.approx(total / weights, rel=1e-5)


def test_what_is_not_on_sale_gets_no_gradient_and_nothing_of_the_sum(log, objective):
    windows = BasketWindows(log, prediction_points(log, 5.0, 1), objective.predicted, 16)
    day = prediction_points(log, 5.0, 1).day
    sale = on_sale_from(log, 9)
    chosen = np.array([b for b in np.flatnonzero(objective.predicted) if (sale >= day[b]).any()])
    closed = torch.from_numpy(sale >= day[chosen, None])
    assert len(chosen) and closed.any() and not closed.all(dim=1).any()
    scores = torch.randn((len(chosen), 30), generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = objective.loss(scores, chosen, *windows.targets(chosen))
    loss.backward()
    assert (scores.grad[closed] == 0).all() and (scores.grad[~closed] != 0).all()
    raised = scores.detach() + 9.0 * closed
    assert objective.loss(raised, chosen, *windows.targets(chosen)).item() == pytest.approx(loss.item(), abs=1e-5)


# --- The network ---------------------------------------------------------------------------------------------------


def random_features(n: int, pairs: int, seed: int) -> FeatureBatch:
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(n * 30, generator=generator)[:pairs].sort().values
    shapes = (n, 30, len(RELATED_FEATURES)), (n, 30, len(ITEM_FEATURES)), (pairs, len(USER_ITEM_FEATURES))
    related, trend, bought = (torch.randn(shape, generator=generator) for shape in shapes)
    return FeatureBatch(related, trend, places // 30, places % 30, bought)


def test_standardize_gives_used_columns_mean_zero_and_standard_deviation_one():
    values = torch.randn(50, 4, 3, generator=torch.Generator().manual_seed(0)) * 7 + 2
    scale = Standardize([True, False, True])
    scale.fit(values)
    flat = scale(values).flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.tensor([1.0, 0.0, 1.0]), atol=1e-4, rtol=0)


def test_one_example_is_enough_to_fit_a_scale():
    scale = Standardize([True, True])
    scale.fit(torch.tensor([[3.0, -1.0]]))
    assert torch.isfinite(scale(torch.tensor([[4.0, 5.0]]))).all()


def test_attention_adds_up_to_one_and_is_what_the_blocks_do(shop_features, windows):
    network = untrained(shop_features)
    tokens, opens, _ = windows.ends(np.unique(windows.predicted[windows.predicted >= 0]))
    full = (tokens <= 30).all(dim=1)
    tokens, shoppers = tokens[full], windows.shoppers[opens[full]]
    calls = []
    hooks = [
        block.attention.register_forward_hook(lambda layer, given, out: calls.append((layer, given[0], out)))
        for block in network.gpt.blocks
    ]
    weights = network.attention(tokens, shoppers)
    for hook in hooks:
        hook.remove()
    B, T = tokens.shape
    assert weights.shape == (2, B, 2, T) and B > 3
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, B, 2))
    for share, (layer, given, out) in zip(weights, calls, strict=True):
        values = layer.query_key_value(given).view(B, T, 3, 2, 8)[:, :, 2]  # (B, T, heads, C / heads)
        by_hand = layer.output(torch.einsum("bht,bthd->bhd", share, values).reshape(B, 16))
        torch.testing.assert_close(by_hand, out[:, -1], atol=1e-5, rtol=1e-4)
    assert not any(block.attention.query_key_value._forward_hooks for block in network.gpt.blocks), "it cleans up"


def test_without_its_parts_no_feature_reaches_a_score(shop_features):
    network, state = (
        untrained(shop_features, frozenset()),
        torch.randn(5, 16, generator=torch.Generator().manual_seed(0)),
    )
    torch.testing.assert_close(
        network.scores(state, random_features(5, 20, 1)), network.scores(state, random_features(5, 9, 2))
    )
    assert not network.text.any()
    tokens, shoppers = torch.tensor([[30, 4, 5, 30]]), torch.randn(1, 4, len(USER_FEATURES))
    states, later = network.states(tokens, shoppers), shoppers.clone()
    later[..., USER_COUNTED:] += 3.0
    torch.testing.assert_close(network.states(tokens, later), states)
    later[..., 0] += 3.0
    assert not torch.allclose(network.states(tokens, later), states, atol=1e-3)


@pytest.mark.parametrize(
    "part, name, columns",
    [("time", "trend", range(6)), ("together", "related", range(3)), ("text", "related", (3, 4))],
)
def test_each_part_brings_its_own_features_and_no_others(shop_features, part, name, columns):
    state, batch = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), random_features(5, 20, 1)
    other = getattr(batch, name).clone()
    other[..., list(columns)] += 2.0
    changed = batch._replace(**{name: other})
    for parts, same in ((NETWORK_PARTS - {part}, True), (NETWORK_PARTS, False)):
        network = untrained(shop_features, parts)
        assert torch.allclose(network.scores(state, batch), network.scores(state, changed), atol=1e-4) == same


def test_the_pointer_points_only_at_what_was_bought(shop_features):
    network, state = untrained(shop_features), torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    batch = random_features(5, 20, 1)
    none = batch._replace(row=batch.row[:0], item=batch.item[:0], bought=batch.bought[:0])
    difference = network.scores(state, batch) - network.scores(state, none)
    pointed = torch.zeros(5, 30, dtype=torch.bool)
    pointed[batch.row, batch.item] = True
    assert (difference[~pointed] == 0).all() and (difference[pointed].abs() > 1e-4).all()


def test_forgotten_products_are_blank_and_openings_are_not(shop_features):
    network, tokens = untrained(shop_features), torch.tensor([[30, 4, 5, 30, 31]])
    shoppers = torch.randn(1, 5, len(USER_FEATURES), generator=torch.Generator().manual_seed(0))
    whole, blank = network.vectors(tokens, shoppers), network.vectors(tokens, shoppers, forget=1.0)
    torch.testing.assert_close(blank[0, [0, 3]], whole[0, [0, 3]])
    assert (blank[0, [1, 2, 4]] == 0).all() and (whole[0, [1, 2]] != 0).all() and (whole[0, 4] == 0).all()


# --- Fitting -------------------------------------------------------------------------------------------------------


def ndcg(scores: np.ndarray, split: evaluation.Split) -> pd.Series:
    judged = evaluation.judge(evaluation.top_lists(scores, split, 3), split)
    return judged.mean()[:, "ndcg@3"]


def test_a_shop_of_habits_is_learned(model, split):
    found = ndcg(scores_at_cut(model, split), split)
    popular = ndcg(models.popularity(split), split)
    chance = ndcg(np.random.default_rng(0).random(split.counts.shape), split)
    assert found["all"] > 2 * popular["all"] and found["all"] > 3 * chance["all"]
    assert found["repeat"] > ndcg(split.counts.toarray(), split)["repeat"] - 0.15  # of eight seeds, 0.09 to 0.12 less
    assert model.metrics[-1]["loss"] < model.metrics[0]["loss"]


def test_fitting_twice_gives_the_same_weights_and_leaves_the_random_state(receipts):
    before = torch.get_rng_state()
    first, second = (BasketGPT.fit(receipts, BRIEF, progress=False) for _ in range(2))
    other = BasketGPT.fit(receipts, replace(BRIEF, seed=1), progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    states = [each.network.state_dict() for each in (first, second, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not all(torch.equal(tensor, states[2][name]) for name, tensor in states[0].items())


def test_nothing_of_who_the_shoppers_are_is_kept(receipts, tmp_path):
    """Whoever they are called, the files are the same to the byte."""
    kept = []
    for name in (0, 9_876_543):
        model = BasketGPT.fit(receipts.assign(customer=receipts["customer"] + name), BRIEF, progress=False)
        folder = tmp_path / str(name)
        folder.mkdir()
        model.save(folder)
        kept.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert not any(isinstance(value, InteractionLog | pd.DataFrame) for value in vars(model).values())
    assert kept[0] == kept[1] and b"7100000" not in kept[0][BASKET_GPT_CONFIG]


@pytest.mark.parametrize("parts", [frozenset(), *(frozenset({part}) for part in sorted(NETWORK_PARTS))], ids="+".join)
def test_every_ablation_trains_saves_and_loads(receipts, parts, tmp_path):
    settings = replace(BRIEF, parts=parts, epochs=0.2)
    model = BasketGPT.fit(receipts, settings, progress=False)
    model.save(tmp_path)
    again = BasketGPT.load(tmp_path)
    assert again.settings == settings
    scores = model.score([[CODES[:2], CODES[3:4]]])
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(again.score([[CODES[:2], CODES[3:4]]]), scores, atol=1e-6)


def test_a_product_in_no_basket_keeps_a_zero_vector_of_its_own(wider):
    untaught = [wider.catalogue.column[code] for code in ("30000", "40000")]
    write, bias = wider.network.write.weight, wider.network.bias
    assert (write[untaught] == 0).all() and (bias[untaught] == 0).all()
    taught = [wider.catalogue.column[code] for code in CODES]
    assert (write[taught].abs().sum(dim=1) > 0).all()


def test_receipts_in_which_nobody_comes_back_are_refused(receipts):
    once = receipts[receipts["invoice"] == receipts.groupby("customer")["invoice"].transform("first")]
    with pytest.raises(ValueError, match="there is no next basket to learn from"):
        BasketGPT.fit(once, BRIEF, progress=False)


def test_no_receipts_are_refused_with_the_same_words(receipts):
    with pytest.raises(ValueError, match="there is no next basket to learn from"):
        BasketGPT.fit(receipts.iloc[:0], BRIEF, progress=False)


def test_one_shopper_who_came_back_is_enough(receipts):
    mine = receipts[receipts["customer"] == receipts["customer"].iloc[0]]
    two = mine[mine["invoice"].isin(mine["invoice"].unique()[:2])]
    model = BasketGPT.fit(two, replace(BRIEF, min_shoppers=1, start=0.0), progress=False)
    assert np.isfinite(model.score([[two["code"].tolist()[:1]], []])).all()


# --- On another device ---------------------------------------------------------------------------------------------


def test_a_model_learns_on_another_device_what_it_learns_on_the_cpu(receipts, elsewhere):
    plain = replace(BRIEF, dropout=0.0, forget=0.0, epochs=0.3)  # the CPU draws attention's dropout in another way
    here, there = (BasketGPT.fit(receipts, plain, progress=False, device=device) for device in ("cpu", elsewhere))
    untaught = BasketNetwork(torch.from_numpy(here.shop_features.text), here.network.gpt.config, 16, 8, plain.parts, 0)
    assert here.network.device == torch.device("cpu") and there.network.device == elsewhere
    for mine, theirs in zip(here.network.parameters(), there.network.parameters(), strict=True):
        torch.testing.assert_close(theirs.cpu(), mine, atol=1e-6, rtol=1e-5)
    assert not torch.equal(here.network.weigh.weight, untaught.weigh.weight)
    figures = [[line[name] for line in model.metrics for name in ("loss", "gradient_norm")] for model in (here, there)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_a_model_on_another_device_answers_as_on_the_cpu_and_is_loaded_on_either(model, elsewhere, tmp_path):
    model.save(tmp_path / "here")
    moved = BasketGPT.load(tmp_path / "here", elsewhere)
    moved.save(tmp_path / "there")
    back = BasketGPT.load(tmp_path / "there", "cpu")
    assert (moved.network.device, back.network.device) == (elsewhere, torch.device("cpu"))
    for name in (BASKET_GPT_WEIGHTS, BASKET_GPT_CONFIG):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    np.testing.assert_allclose(moved.score([HISTORY, []]), model.score([HISTORY, []]), atol=1e-5)
    pd.testing.assert_frame_equal(moved.why(HISTORY, CODES[0]), model.why(HISTORY, CODES[0]), atol=1e-5)
    names, weights = moved.attention(HISTORY)
    assert names == model.attention(HISTORY)[0]
    np.testing.assert_allclose(weights, model.attention(HISTORY)[1], atol=1e-5)


def test_the_other_device_refuses_what_is_on_the_cpu(model, log, elsewhere):
    """The two tests above can fail: what is not moved is noticed."""
    network = untrained(model.shop_features).to(elsewhere)
    windows = BasketWindows(log, prediction_points(log, 0, 0), np.ones(len(log.days), bool), 16)
    tokens, opens, _ = windows.ends(np.array([4, 31]))
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        network.states(tokens, windows.shoppers[opens])


# --- Scoring and recommending -------------------------------------------------------------------------------------

HISTORY = [CODES[:3], [CODES[0], CODES[7]], [CODES[12]]]
DATED = [("2011-03-01", CODES[:3]), ("2011-03-19 10:30", [CODES[0], CODES[7]]), ("2011-04-20", [CODES[12]])]


def test_score_gives_log_probabilities_with_a_row_per_history(model):
    scores = model.score([HISTORY, [], DATED, [[CODES[4]]], [[]]])
    assert scores.shape == (5, 30) and scores.dtype == np.float32
    np.testing.assert_allclose(np.exp(scores).sum(axis=1), 1, atol=1e-5)
    for place, history in enumerate([HISTORY, [], DATED, [[CODES[4]]], [[]]]):
        np.testing.assert_allclose(model.score([history])[0], scores[place], atol=1e-5)
    assert len({row.tobytes() for row in scores.round(4)}) == 5


def test_no_histories_give_no_rows(model):
    assert model.score([]).shape == (0, 30)


def test_more_histories_than_are_scored_at_once(model):
    many = [[[CODES[n % 30]], [CODES[n % 7]]] for n in range(SCORED_AT_ONCE + 3)]
    np.testing.assert_allclose(model.score(many)[-1], model.score(many[-1:])[0], atol=1e-5)


def test_recommend_is_the_best_of_score_with_names(model):
    table, scores = model.recommend(HISTORY, k=5), model.score([HISTORY])[0]
    best = np.argsort(-scores)[:5]
    assert table.columns.tolist() == ["code", "description", "score"]
    assert table["code"].tolist() == [CODES[i] for i in best]
    assert table["description"].tolist() == [NAMES[CODES[i]] for i in best]
    np.testing.assert_allclose(table["score"], np.exp(scores[best]), rtol=1e-5)


def test_what_a_shopper_buys_again_and_again_comes_first(model):
    again = [[CODES[20], CODES[25]]] * 4
    assert set(model.recommend(again, k=2)["code"]) == {CODES[20], CODES[25]}


def test_names_are_as_good_as_codes(model):
    named = [[NAMES[code].lower() for code in items] for items in HISTORY]
    pd.testing.assert_frame_equal(model.recommend(named), model.recommend(HISTORY))


@pytest.mark.parametrize(
    "history", [[], [[]], [[CODES[3]]], [[], [CODES[3]], []]], ids=["none", "empty", "one", "gaps"]
)
def test_short_histories_are_answered(model, history):
    table = model.recommend(history)
    assert len(table) == 10 and np.isfinite(table["score"]).all() and table["code"].is_unique


def test_all_that_can_be_had_is_had_once(model):
    assert sorted(model.recommend(HISTORY, k=1000)["code"]) == CODES
    assert model.recommend(HISTORY, k=1000)["score"].sum() == pytest.approx(1, abs=1e-4)


def test_new_leaves_out_what_was_bought_and_keeps_the_order(model):
    bought = {code for items in HISTORY for code in items}
    new, every = model.recommend(HISTORY, k=99, new=True), model.recommend(HISTORY, k=99)
    pd.testing.assert_frame_equal(new, every[~every["code"].isin(bought)].reset_index(drop=True))


def test_among_ranks_only_these(model):
    among = [CODES[9], "red mug", CODES[9]]
    every = model.recommend(HISTORY, k=99)
    wanted = every[every["code"].isin([CODES[9], CODES[0]])].reset_index(drop=True)
    pd.testing.assert_frame_equal(model.recommend(HISTORY, among=among), wanted)
    assert model.recommend(HISTORY, among=among, new=True)["code"].tolist() == [CODES[9]]
    assert model.recommend(HISTORY, among=[]).empty


def test_a_history_longer_than_the_context_is_read_at_its_end_and_counted_whole(model):
    late = [[CODES[n % 30], CODES[(n + 3) % 30]] for n in range(30)]
    assert 3 * len(late) > 2 * SMALL.context
    old = [[CODES[29]]] * 5
    scores = [model.score([early + late])[0] for early in ([[]] * 5, old)]
    assert np.isfinite(scores).all() and np.abs(scores[0] - scores[1]).max() > 1e-3
    shares = [model.recommend(early + late, 1, among=[CODES[29]])["score"][0] for early in ([[]] * 5, old)]
    assert shares[1] > shares[0]


def test_baskets_without_dates_are_as_if_bought_at_the_shop_s_rhythm(model):
    features = model.shop_features
    days = [features.last_day - features.rhythm * before for before in (3, 2, 1)]
    dated = [(features.origin + day * DAY, items) for day, items in zip(days, HISTORY, strict=True)]
    np.testing.assert_allclose(model.score([dated]), model.score([HISTORY]), atol=1e-4)
    assert np.abs(model.score([DATED]) - model.score([HISTORY])).max() > 1e-3


def test_the_day_of_the_prediction_is_the_day_after_the_receipts_unless_given(model, split):
    after = split.receipts["date"].max().normalize() + DAY
    np.testing.assert_array_equal(model.score([DATED]), model.score([DATED], after))
    for when in ("2011-04-20", "2011-06-30", "2013-01-01"):
        scores = model.score([DATED], when)
        assert np.isfinite(scores).all() and np.abs(scores - model.score([DATED])).max() > 1e-4


def test_scores_as_of_a_past_day_do_not_know_what_came_later(model, receipts, split):
    """The same prediction in March, for a shop whose April was another one: only the weights may tell."""
    later = (split.receipts["date"] >= "2011-04-01").to_numpy()
    other = split.receipts.copy()
    other.loc[later, "code"] = [CODES[29 - CODES.index(code)] for code in other.loc[later, "code"]]
    log, _ = interaction_log(other, np.array(CODES))
    s, history = model.settings, DATED[:2]
    twin = BasketGPT(NAMES, ShopFeatures(log, model.shop_features.text, s.refresh, s.nearest, s.solved), s)
    twin.network.load_state_dict(model.network.state_dict())
    twin.network.eval()
    np.testing.assert_allclose(twin.score([history], "2011-03-31"), model.score([history], "2011-03-31"), atol=1e-5)
    assert np.abs(twin.score([history]) - model.score([history])).max() > 1e-3


def test_a_product_never_sold_is_ranked_by_its_words(wider):
    every = wider.recommend(HISTORY, k=99)
    assert set(every["code"]) == {*CODES, "30000", "40000"} and np.isfinite(every["score"]).all()
    found = wider.recommend([["40000"], ["green mug candle", CODES[1]]], among=["40000", CODES[1]])
    assert set(found["code"]) == {"40000", CODES[1]}
    assert wider.why([["40000"], [CODES[1]]], "40000")["code"].tolist().count("40000") == 1


def test_codes_that_are_not_in_the_catalogue_are_all_named(model):
    typo = CODES[5][:-1] + "x"
    for ask in (
        model.recommend,
        lambda history: model.score([[[CODES[1]]], history]),
        lambda h: model.why(h, CODES[0]),
    ):
        with pytest.raises(ValueError) as error:
            ask([[CODES[0], "blue mugg"], [typo]])
        message = str(error.value)
        assert "'blue mugg' (did you mean 'BLUE MUG'?)" in message and f"{typo!r} (did you mean" in message
    with pytest.raises(ValueError, match="'nothing of ours'"):
        model.why(HISTORY, "nothing of ours")
    with pytest.raises(ValueError, match="'nothing of ours'"):
        model.recommend(HISTORY, among=["nothing of ours"])


@pytest.mark.parametrize(
    "history, when, words",
    [
        (CODES[:3], None, "a list of baskets"),
        (DATED[::-1], None, "oldest first"),
        ([DATED[0], CODES[:2]], None, "some baskets have a date and some have none"),
        (DATED, "2011-03-30", "none later than the day of asking, 2011-03-30"),
        (HISTORY, pd.NaT, "a date is missing"),
        ([], pd.NaT, "a date is missing"),
    ],
)
def test_a_history_that_is_none_is_refused(model, history, when, words):
    with pytest.raises(ValueError, match=words):
        model.recommend(history, when=when)


@pytest.mark.parametrize("k", [0, -3])
def test_k_must_be_at_least_one(model, k):
    with pytest.raises(ValueError, match=f"k is {k}"):
        model.recommend(HISTORY, k=k)


def test_why_is_the_difference_of_the_log_odds_with_and_without_a_product(model):
    table = model.why(DATED, CODES[0])

    def odds(history) -> float:
        share = np.exp(model.score([history]).astype(np.float64)[0, 0])
        return np.log(share / (1 - share))

    effects = table.set_index("code")["effect"]
    assert sorted(effects.index) == sorted({code for _, items in DATED for code in items})
    assert effects.is_monotonic_decreasing and table["description"].tolist() == [NAMES[c] for c in table["code"]]
    for code, effect in effects.items():
        without = [(date, [item for item in items if item != code]) for date, items in DATED]
        assert effect == pytest.approx(odds(DATED) - odds(without), abs=1e-4)
    assert effects.index[0] == CODES[0], "having bought it twice is the best reason"
    assert model.why([], CODES[0]).empty


def test_scores_at_the_cut_are_those_of_histories_with_the_same_dates(model, split):
    dated = []
    for shopper in split.shoppers:
        mine = split.receipts[split.receipts["customer"] == shopper]
        invoices = sorted((lines["date"].min(), lines["code"].tolist()) for _, lines in mine.groupby("invoice"))
        dated.append(invoices)
    np.testing.assert_allclose(scores_at_cut(model, split), model.score(dated, split.cut), atol=1e-4)


def test_basket_gpt_is_a_fit_and_its_scores(split):
    scores = basket_gpt_scores(split, BRIEF)
    fitted = BasketGPT.fit(split.receipts, BRIEF, progress=False)
    np.testing.assert_array_equal(scores, scores_at_cut(fitted, split))
    assert scores.shape == split.counts.shape and scores.dtype == np.float32


def test_a_model_of_other_products_is_not_judged(wider, split):
    with pytest.raises(ValueError, match="fitted on other products"):
        scores_at_cut(wider, split)


# --- On disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(model, tmp_path):
    model.save(tmp_path)
    return tmp_path


def test_a_model_that_is_loaded_scores_as_the_one_that_was_saved(model, folder):
    again = BasketGPT.load(folder)
    assert again.settings == model.settings and again.catalogue.products == model.catalogue.products
    np.testing.assert_array_equal(again.score([HISTORY, [], DATED]), model.score([HISTORY, [], DATED]))
    np.testing.assert_array_equal(again.score([DATED], "2011-08-01"), model.score([DATED], "2011-08-01"))
    pd.testing.assert_frame_equal(again.recommend(HISTORY), model.recommend(HISTORY))
    with pytest.raises(ValueError, match="as of 2011-.*earlier day"):
        again.score([DATED[:1]], "2011-03-05")
    names = [storage.MANIFEST, BASKET_GPT_WEIGHTS, BASKET_GPT_CONFIG]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_saving_does_not_change_the_model(model, tmp_path):
    march = model.score([DATED[:1]], "2011-03-05")
    model.save(tmp_path)
    np.testing.assert_array_equal(model.score([DATED[:1]], "2011-03-05"), march)


def _rewritten(change):
    def damage(folder):
        config = json.loads((folder / BASKET_GPT_CONFIG).read_text(encoding="utf-8"))
        (folder / BASKET_GPT_CONFIG).write_text(json.dumps(change(config)), encoding="utf-8")

    return damage


DAMAGES = {
    "no configuration": lambda folder: (folder / BASKET_GPT_CONFIG).unlink(),
    "no weights": lambda folder: (folder / BASKET_GPT_WEIGHTS).unlink(),
    "half the weights": lambda folder: (folder / BASKET_GPT_WEIGHTS).write_bytes(
        (folder / BASKET_GPT_WEIGHTS).read_bytes()[:5000]
    ),
    "no text": lambda folder: (folder / BASKET_GPT_WEIGHTS).write_bytes(b""),
    "not JSON": lambda folder: (folder / BASKET_GPT_CONFIG).write_bytes(b"\xff\xfe{"),
    "a list": _rewritten(lambda config: []),
    "no settings": _rewritten(lambda config: {key: value for key, value in config.items() if key != "settings"}),
    "unknown setting": _rewritten(lambda config: config | {"settings": config["settings"] | {"depth": 3}}),
    "other sizes": _rewritten(lambda config: config | {"settings": config["settings"] | {"width": 32}}),
    "fewer products": _rewritten(lambda config: config | {"products": dict(list(config["products"].items())[1:])}),
    "settings are a number": _rewritten(lambda config: config | {"settings": 3}),
    "known is nothing": _rewritten(lambda config: config | {"known": None}),
    "products are nothing": _rewritten(lambda config: config | {"products": None}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("resealed", [False, True])
def test_what_is_damaged_is_not_loaded_and_named(folder, damage, resealed):
    damage(folder)
    if resealed:
        storage.seal(folder, BASKET_GPT_KIND, {})
    with pytest.raises(ValueError, match="does not hold a BasketGPT that can be loaded") as error:
        BasketGPT.load(folder)
    assert str(folder) in str(error.value) and "fit and save it anew" in str(error.value)


@pytest.mark.parametrize("name", [BASKET_GPT_WEIGHTS, BASKET_GPT_CONFIG, storage.MANIFEST])
def test_a_flipped_bit_is_noticed(folder, name):
    whole = (folder / name).read_bytes()
    for place in range(0, len(whole), len(whole) // 20):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(storage.Damaged, match="does not hold a BasketGPT"):
            BasketGPT.load(folder)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not hold a BasketGPT"):
        BasketGPT.load(tmp_path / "nowhere")


def test_log_odds_are_those_of_the_probability_and_finite_where_it_rounds_to_one():
    chances = np.array([[0.1, 0.5, 0.9], [1e-30, 0.999, 1 - 1e-6]])
    np.testing.assert_allclose(log_odds(np.log(chances)), np.log(chances / (1 - chances)), rtol=1e-9)
    at_one = log_odds(np.array([0.0, -1e-12, -50.0], np.float32))
    assert np.isfinite(at_one).all() and at_one[0] >= at_one[1] > 10 and at_one.dtype == np.float32
