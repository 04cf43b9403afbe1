"""The reward model: the same scores however replies are batched, decoders and encoders, files."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.testing import assert_close
from transformers import T5Config, T5ForConditionalGeneration

from rewardtrain.checkpoints import save_checkpoint, verify
from rewardtrain.errors import ModelRefused, UnsupportedArchitecture
from rewardtrain.hyperparameters import InvalidSettings, LoraSettings, RewardModelSettings
from rewardtrain.losses import comparison_pairs, listwise_preference_loss
from rewardtrain.reward_model import HEAD_CONFIG, HEAD_WEIGHTS, Cuts, RewardModel, max_positions
from tests.rewardtrain.tiny import (
    bot,
    make_bert,
    make_bert_tokenizer,
    make_gpt2,
    make_llama,
    make_mistral,
    make_tokenizer,
    save_base,
    user,
)

BASES = {
    "rotary": lambda: (make_llama(), make_tokenizer()),
    "absolute": lambda: (make_gpt2(), make_tokenizer(chat_template=None)),
    "sliding window": lambda: (make_mistral(), make_tokenizer()),
    "encoder": lambda: (make_bert(), make_bert_tokenizer()),
}
PROMPTS = [[user("hi")], [user("a longer one"), bot("yes"), user("and?")], [user("x")]]
REPLIES = [["yo", "hello there", "", "so so"], ["no", "well, that depends"], ["one"]]


@pytest.fixture(params=BASES.values(), ids=BASES.keys())
def base(request, tmp_path):
    return save_base(tmp_path / "base", *request.param())


@pytest.fixture
def reward_model(base):
    return RewardModel.from_base(base, RewardModelSettings(seed=1)).eval()


@pytest.fixture
def llama(tmp_path):
    return save_base(tmp_path / "llama", *BASES["rotary"]())


def by_hand(reward_model, prompt, reply):
    """The score of one reply, alone in its row, no padding."""
    encoded = reward_model.encode(prompt, [reply])
    ids = encoded.prompt + encoded.replies[0]
    if not reward_model.config.is_causal:
        ids = [reward_model.tokenizer.cls_token_id, *ids, reward_model.tokenizer.sep_token_id]
    hidden = reward_model.trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
    if reward_model.config.is_causal:
        hidden = hidden[len(encoded.prompt) :]
    pooled = hidden[-1] if reward_model.config.pooling == "last" else hidden.mean(dim=0)
    return reward_model.head(pooled).squeeze()


# Scores


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_every_reply_scores_as_it_would_alone(base, pooling):
    reward_model = RewardModel.from_base(base, RewardModelSettings(seed=1, pooling=pooling)).eval()
    scores = reward_model.scores(PROMPTS, REPLIES)
    assert [len(own) for own in scores] == [4, 2, 1]
    for prompt, replies, own in zip(PROMPTS, REPLIES, scores, strict=True):
        for reply, score in zip(replies, own, strict=True):
            assert_close(score, by_hand(reward_model, prompt, reply), atol=1e-5, rtol=1e-5)


def test_sharing_the_prefix_changes_neither_scores_nor_gradients(base):
    gradients = []
    for share_prefix in (True, False):
        reward_model = RewardModel.from_base(base, RewardModelSettings(share_prefix=share_prefix, seed=1)).eval()
        scores = reward_model.scores(PROMPTS, REPLIES)
        loss = listwise_preference_loss(scores, [comparison_pairs([2, 1, 4, 3]), comparison_pairs([1, 2]), []])
        loss.backward()
        gradients.append((loss.detach(), [p.grad for p in reward_model.parameters() if p.grad is not None]))
    (shared_loss, shared), (plain_loss, plain) = gradients
    assert_close(shared_loss, plain_loss, atol=1e-5, rtol=0)
    norm = torch.stack([one.norm() for one in plain]).norm()
    difference = torch.stack([(one - other).norm() for one, other in zip(shared, plain, strict=True)]).norm()
    assert float(difference) <= 1e-5 * float(norm) + 1e-7


def test_batches_of_like_length_change_no_score_and_leave_nobody_out(llama):
    prompts = [[user("p" * (place % 5 + 1))] for place in range(12)]
    replies = [["r" * (place % 7 + 1 + k) for k in range(place % 3 + 1)] for place in range(12)]
    whole = RewardModel.from_base(llama, RewardModelSettings(seed=1)).eval()
    narrow = RewardModel.from_base(llama, RewardModelSettings(seed=1, tokens_per_forward=40)).eval()
    encoded = [narrow.encode(prompt, own) for prompt, own in zip(prompts, replies, strict=True)]
    batches = narrow.batches(encoded)
    assert sorted(place for batch in batches for place in batch) == list(range(12))
    assert len(batches) > len(whole.batches(encoded)) == 1
    for one, other in zip(whole.scores(prompts, replies), narrow.scores(prompts, replies), strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_8_prompts_at_once_equal_1_prompt_8_times(reward_model):
    prompts = [[user("q" * (place + 1))] for place in range(8)]
    replies = [["a", "bb"] for _ in range(8)]
    together = reward_model.scores(prompts, replies)
    alone = [reward_model.scores([prompt], [own])[0] for prompt, own in zip(prompts, replies, strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_scores_need_replies_to_each_prompt(reward_model):
    with pytest.raises(ValueError, match="3 prompts were given, but replies to 1"):
        reward_model.scores(PROMPTS, REPLIES[:1])


def test_an_encoder_can_be_read_at_its_first_or_last_token(tmp_path):
    base = save_base(tmp_path / "bert", *BASES["encoder"]())
    for pooling, place in (("cls", 0), ("last", -1)):
        reward_model = RewardModel.from_base(base, RewardModelSettings(pooling=pooling)).eval()
        encoded = reward_model.encode(PROMPTS[0], ["yo"])
        ids = torch.tensor([[1, *encoded.prompt, *encoded.replies[0], 2]])
        expected = reward_model.head(reward_model.trunk(input_ids=ids).last_hidden_state[0, place])
        scores = reward_model.scores(PROMPTS[:1], [["yo", "a longer reply"]])[0]
        assert_close(scores[:1], expected, atol=1e-5, rtol=1e-5)


def test_a_reply_without_tokens_is_scored_by_what_precedes_it(llama):
    for pooling in ("mean", "last"):
        reward_model = RewardModel.from_base(llama, RewardModelSettings(pooling=pooling)).eval()
        reward_model.tokenizer.eos_token = None
        empty, _ = reward_model.scores(PROMPTS[:1], [["", "yo"]])[0]
        ids = torch.tensor([reward_model.encode(PROMPTS[0], [""]).prompt])
        expected = reward_model.head(reward_model.trunk(input_ids=ids).last_hidden_state[0, -1])
        assert_close(empty, expected.squeeze(), atol=1e-5, rtol=1e-5)


def test_a_decoder_cannot_be_read_before_the_reply(llama):
    with pytest.raises(InvalidSettings, match="Set pooling to mean or last"):
        RewardModel.from_base(llama, RewardModelSettings(pooling="cls"))


# What goes in


def test_replies_of_several_turns_and_of_mixed_beginnings_read_as_the_dialogue(llama):
    reward_model = RewardModel.from_base(llama, RewardModelSettings())
    text = lambda one, row: reward_model.tokenizer.decode(one.prompt + one.replies[row])  # noqa: E731
    prompt = [user("hi")]
    encoded = reward_model.encode(prompt, [[bot("yo"), user("so?"), bot("ok")], [bot("no")]])
    assert [text(encoded, row) for row in (0, 1)] == ["<user>hi<bot>yo</s><user>so?<bot>ok</s>", "<user>hi<bot>no</s>"]
    mixed = reward_model.encode(prompt, [[user("hey"), bot("yo")], [bot("no")]])
    assert [text(mixed, row) for row in (0, 1)] == ["<user>hi<user>hey<bot>yo</s>", "<user>hi<bot>no</s>"]


def test_what_does_not_fit_is_cut_and_counted(tmp_path):
    base = save_base(tmp_path / "bert", *BASES["encoder"]())  # 128 positions
    reward_model = RewardModel.from_base(base, RewardModelSettings())
    assert reward_model.config.max_tokens == 128
    assert reward_model.config.max_reply_tokens == 96
    encoded = reward_model.encode([user("a" * 100), bot("b"), user("c")], ["d" * 200, "e"])
    assert encoded.width + 2 <= 128
    assert (encoded.turns_cut, encoded.replies_cut) == (2, 1)
    assert reward_model.scores([[user("a" * 500)]], [["d" * 500]])[0].shape == (1,)
    cuts = Cuts()
    cuts.count(encoded)
    cuts.count(reward_model.encode(PROMPTS[0], ["fits"]))
    assert cuts == Cuts(dialogues=1, turns=2, replies=1)


def test_positions_that_start_after_the_padding_id_are_not_counted():
    network = make_bert()
    network.config.model_type, network.config.pad_token_id = "roberta", 1
    assert max_positions(network) == 126


# Files


def test_a_saved_reward_model_scores_the_same_and_holds_data_alone(reward_model, tmp_path):
    save_checkpoint(tmp_path / "saved", reward_model.save)
    verify(tmp_path / "saved")
    suffixes = {path.suffix for path in (tmp_path / "saved").iterdir()}
    assert suffixes <= {".json", ".safetensors", ".jinja", ".txt"}
    loaded = RewardModel.load(tmp_path / "saved")
    assert loaded.config == reward_model.config
    for one, other in zip(loaded.scores(PROMPTS, REPLIES), reward_model.scores(PROMPTS, REPLIES), strict=True):
        assert_close(one, other)


def test_lora_trains_adapters_and_head_and_is_saved_without_its_base(llama, tmp_path):
    settings = RewardModelSettings(lora=LoraSettings(rank=2))
    reward_model = RewardModel.from_base(llama, settings)
    trained = [name for name, parameter in reward_model.named_parameters() if parameter.requires_grad]
    assert all("lora" in name or name in {"head.weight", "likelihood_weights"} for name in trained)
    with torch.no_grad():
        for name, parameter in reward_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    reward_model.eval()
    save_checkpoint(tmp_path / "adapter", reward_model.save)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    loaded = RewardModel.load(tmp_path / "adapter")
    assert_close(loaded.scores(PROMPTS, REPLIES)[0], reward_model.scores(PROMPTS, REPLIES)[0])
    plain = RewardModel.from_base(llama, RewardModelSettings()).eval()
    assert not torch.allclose(plain.scores(PROMPTS, REPLIES)[0], loaded.scores(PROMPTS, REPLIES)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modeling.py", "open('marker', 'w')"),
        ("pytorch_model.bin", "x"),
        ("config.json", json.dumps({"model_type": "llama", "auto_map": {"AutoModel": "modeling.Evil"}})),
        ("generation_config.json", json.dumps({"inner": {"auto_map": {"AutoModel": "modeling.Evil"}}})),
    ],
)
def test_a_folder_with_code_is_refused_as_base_and_as_reward_model(llama, tmp_path, name, content):
    save_checkpoint(tmp_path / "saved", RewardModel.from_base(llama, RewardModelSettings()).save)
    for folder in (llama, tmp_path / "saved"):
        (folder / name).write_text(content)
    with pytest.raises(ModelRefused, match=re.escape(name)):
        RewardModel.from_base(llama, RewardModelSettings())
    with pytest.raises(ModelRefused, match=re.escape(name)):
        RewardModel.load(tmp_path / "saved")


def test_an_encoder_decoder_is_refused(tmp_path):
    config = T5Config(vocab_size=262, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    base = save_base(tmp_path / "t5", T5ForConditionalGeneration(config), make_tokenizer())
    with pytest.raises(UnsupportedArchitecture, match="encoder-decoder. Start from a decoder or an encoder alone"):
        RewardModel.from_base(base, RewardModelSettings())


@pytest.mark.parametrize("name", [HEAD_CONFIG, HEAD_WEIGHTS, "config.json"])
def test_a_missing_part_is_named(llama, tmp_path, name):
    save_checkpoint(tmp_path / "saved", RewardModel.from_base(llama, RewardModelSettings()).save)
    (tmp_path / "saved" / name).unlink()
    with pytest.raises(ModelRefused, match=name):
        RewardModel.load(tmp_path / "saved")


def test_a_head_description_from_elsewhere_is_refused(llama, tmp_path):
    save_checkpoint(tmp_path / "saved", RewardModel.from_base(llama, RewardModelSettings()).save)
    (tmp_path / "saved" / HEAD_CONFIG).write_text('{"layers": 3}')
    with pytest.raises(ModelRefused, match="does not describe a reward head"):
        RewardModel.load(tmp_path / "saved")
