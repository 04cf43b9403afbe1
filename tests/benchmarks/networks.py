"""The networks that are measured: a Llama of four layers with random weights, and tokens that are words."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

VOCABULARY = 4096
SPECIAL = ["<pad>", "</s>", "<user>", "<bot>"]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user> {{ m['content'] }} "
    "{% else %}<bot> {{ m['content'] }} </s> {% endif %}{% endfor %}{% if add_generation_prompt %}<bot> {% endif %}"
)


def llama_config(**changes: Any) -> LlamaConfig:
    """3.9 million weights: 4 layers, 256 wide, 4,096 tokens."""
    values = {
        "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 8, "max_position_embeddings": 1024, "pad_token_id": 0,
        "bos_token_id": None, "eos_token_id": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    return LlamaConfig(**values | changes)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Every word w4 … w4095 is a token, so that a text has exactly as many tokens as words."""
    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", clean_up_tokenization_spaces=False,
        additional_special_tokens=SPECIAL[2:],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def random_ids(count: int, generator: torch.Generator) -> list[int]:
    """Token IDs, none of them special."""
    return torch.randint(len(SPECIAL), VOCABULARY, (count,), generator=generator).tolist()
