"""Tiny random networks and byte-level tokenizers made in memory, in the architectures that matter."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from rewardtrain.reward_training import RankedComparison
from rewardtrain.rule_training import JudgedDialogue, RuleVerdict

SPECIAL = ["<pad>", "<s>", "</s>", "<user>", "<bot>", "<system>"]
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}<user>{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<bot>{{ m['content'] }}</s>"
    "{% elif m['role'] == 'system' %}<system>{{ m['content'] }}"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


def make_tokenizer(*, chat_template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """A token per byte, after six special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=SPECIAL[3:], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = chat_template
    return tokenizer


def make_bert_tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte, with [CLS] and [SEP], without an end of sequence or a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[CLS]", "[SEP]", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def make_llama(*, hidden: int = 32, layers: int = 2, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A decoder with rotary positions."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=262, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.2, tie_word_embeddings=True, **changes,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def make_gpt2(*, hidden: int = 32, layers: int = 2, seed: int = 0, dropout: float = 0.0) -> GPT2LMHeadModel:
    """A decoder with learned absolute positions."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=262, n_embd=hidden, n_layer=layers, n_head=4, n_positions=256, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.2, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def make_mistral(*, hidden: int = 32, layers: int = 2, seed: int = 0, window: int = 8) -> MistralForCausalLM:
    """A decoder with sliding windows, whose cache cannot be repeated."""
    torch.manual_seed(seed)
    config = MistralConfig(
        vocab_size=262, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.2, sliding_window=window,
    )  # fmt: skip
    return MistralForCausalLM(config).eval()


def make_bert(*, hidden: int = 32, layers: int = 2, seed: int = 0) -> BertModel:
    """An encoder."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=259, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, max_position_embeddings=128, pad_token_id=0, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).eval()


def save_base(folder: Path, network: Any, tokenizer: Any) -> Path:
    """A model folder as one finds them: weights in safetensors, configuration, tokenizer."""
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def bot(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def planted(count: int, seed: int, k: int = 4) -> list[RankedComparison]:
    """Comparisons in which more a's and fewer b's are better."""
    rng = random.Random(seed)
    comparisons = []
    for _ in range(count):
        texts = ["".join(rng.choices("abcdefgh", k=rng.randint(3, 9))) for _ in range(k)]
        worth = [text.count("a") - text.count("b") for text in texts]
        ranks = [1 + sum(other > own for other in worth) for own in worth]
        comparisons.append(RankedComparison([user(f"say {rng.choice('xyz')}")], [[bot(t)] for t in texts], ranks))
    return comparisons


LETTER_RULES = {letter: f"No {letter * 6}!" for letter in "abc"}


def planted_verdicts(count: int, seed: int, *, rules: int = 2) -> list[JudgedDialogue]:
    """Dialogues that break the rule against a letter by saying it often; judged by the probed rule and others.

    rules  by how many of the three each dialogue is judged
    """
    rng = random.Random(seed)
    found = []
    for number in range(count):
        probed = "abc"[number % 3]
        said = rng.choice("abcxxx") if rng.random() < 0.5 else probed
        text = "".join(rng.choices(f"{said}xyz", weights=(9, 1, 1, 1), k=rng.randint(4, 9)))
        others = [letter for letter in "abc" if letter != probed]
        asked = [probed, *rng.sample(others, rules - 1)]
        verdicts = [RuleVerdict(key, LETTER_RULES[key], float(text.count(key) > 1)) for key in asked]
        found.append(JudgedDialogue([user(f"say {probed}"), bot(text)], verdicts, probed))
    return found
