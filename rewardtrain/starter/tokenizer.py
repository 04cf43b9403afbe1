"""The starter policy's tokenizer: byte-level, so that any text can be read, with a token for each kind of turn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

VOCABULARY = 2048

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant", "search_query", "search_results")
SPECIAL = [PAD, END, *(f"<|{role}|>" for role in ROLES)]

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] | replace('<|', '< |') + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Each turn is its role's token, its text and the end token; a text cannot smuggle in such a token. The template of a
longer dialogue starts with that of a shorter one and its opened reply."""


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Any:
    """A tokenizer of transformers with at most `vocabulary` tokens, learned from texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[f"<|{role}|>" for role in ROLES],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


Encoded = tuple[list[int], list[bool]]
"""A dialogue's token ids, and for each whether the assistant wrote it or ended its turn with it."""


def encode_dialogues(tokenizer: Any, dialogues: Sequence[Sequence[dict[str, str]]]) -> list[Encoded]:
    """The tokens of dialogues, as the chat template renders them."""
    texts = [turn["content"] for turns in dialogues for turn in turns]
    encoded = iter(tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"])
    end = tokenizer.eos_token_id
    role_ids = {role: tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ROLES}
    found = []
    for turns in dialogues:
        ids: list[int] = []
        is_reply: list[bool] = []
        for turn in turns:
            text = next(encoded)
            ids += [role_ids[turn["role"]], *text, end]
            is_reply += [False] + [turn["role"] == "assistant"] * (len(text) + 1)
        found.append((ids, is_reply))
    return found
