"""The policy: a causal language model, with a value head on its trunk while it is being trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from rewardtrain.chat import pad_id
from rewardtrain.errors import UnsupportedArchitecture
from rewardtrain.hyperparameters import LoraSettings
from rewardtrain.lora import (
    adapter_is_fresh,
    adapters_off,
    add_lora,
    has_lora,
    keep_reference_adapter,
    load_network,
    load_tokenizer,
    reference_adapter,
    save_network,
    without_wrapper,
)
from rewardtrain.losses import token_entropy, token_logprobs
from rewardtrain.precision import whole_precision
from rewardtrain.shared_prefix import device_of, pad_rows, reply_states

VALUE_HEAD = "value_head.safetensors"


@dataclass
class ReplyEvaluation:
    """What a policy says of given replies. All (R, T), 0 where `mask` is False; values and entropy may be left out."""

    logprobs: Tensor
    mask: Tensor
    values: Tensor | None = None
    entropy: Tensor | None = None


class Policy(nn.Module):
    """A causal language model and its tokenizer, with trunk and output layer apart.

    The output layer is by far the widest, so it is applied to the positions that predict reply tokens and to no
    others.
    """

    def __init__(self, network: Any, tokenizer: Any):
        super().__init__()
        self.value_head: nn.Linear | None = None
        self.network = network
        self.tokenizer = tokenizer
        self.logit_scale, self.logit_cap = _logit_changes(without_wrapper(network))  # known to fit, or refused now

    @property
    def trunk(self) -> Any:
        """The network without its output layer."""
        return trunk_of(self.network)

    @property
    def pad_id(self) -> int:
        return pad_id(self.tokenizer)

    @property
    def device(self) -> torch.device:
        return device_of(self.network)

    @property
    def max_positions(self) -> int:
        """How many tokens the network takes; very many when it sets no limit."""
        config = without_wrapper(self.network).config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or 1_000_000)

    @property
    def vocabulary_size(self) -> int:
        """V: how many tokens the output layer knows, those without a text included."""
        return int(without_wrapper(self.network).get_output_embeddings().weight.shape[0])

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) in float32 from hidden states (..., H)."""
        return logits_of(self.network, hidden)

    def values(self, hidden: Tensor) -> Tensor | None:
        """(...) the value of each state, or None without a value head."""
        if self.value_head is None:
            return None
        with whole_precision(hidden.device):
            return self.value_head(hidden.float()).squeeze(-1)

    def evaluate_replies(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        owners: Sequence[int],
        *,
        temperature: float = 1.0,
        share_prefix: bool = True,
        with_entropy: bool = False,
    ) -> ReplyEvaluation:
        """Log-probabilities (and values) of replies this policy or another one wrote.

        prompts  P rows of token ids
        replies  R rows, at least one token each; reply r answers prompts[owners[r]]
        """
        states = reply_states(
            self.trunk,
            prompts,
            [reply[:-1] for reply in replies],  # nothing is predicted from a last token
            owners,
            pad_id=self.pad_id,
            share_prefix=share_prefix,
        )
        hidden = torch.cat([states.before.unsqueeze(1), states.states], dim=1)
        ids, mask = pad_rows(replies, self.pad_id, device=hidden.device)
        real = hidden[mask]
        logits = self.logits(real)
        if temperature != 1.0:  # each pass over (tokens, V) numbers, and its gradient, is felt
            logits = logits / temperature
        values = self.values(real)
        return ReplyEvaluation(
            logprobs=spread(token_logprobs(logits, ids[mask]), mask),
            mask=mask,
            values=None if values is None else spread(values, mask),
            entropy=spread(token_entropy(logits), mask) if with_entropy else None,
        )

    def save(self, folder: Path) -> None:
        """Write what is served: the network (or its adapter) and the tokenizer. Never a value head."""
        save_network(self.network, self.tokenizer, folder)


class PolicyWithValue(Policy):
    """A policy in training: a linear value head reads the trunk's hidden states, at half the cost of a second network.

    It starts at zero, the mean of a standardised reward.
    """

    def __init__(self, network: Any, tokenizer: Any):
        super().__init__(network, tokenizer)
        hidden_size = without_wrapper(network).config.get_text_config().hidden_size
        head = nn.Linear(hidden_size, 1).to(device_of(network))
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        self.value_head: nn.Linear = head

    def save_value_head(self, folder: Path) -> None:
        """Write the value head alone, for a folder beside the served one."""
        from safetensors.torch import save_file

        save_file(
            {name: tensor.contiguous() for name, tensor in self.value_head.state_dict().items()},
            Path(folder) / VALUE_HEAD,
        )

    def load_value_head(self, folder: Path) -> Self:
        """Take up the value head saved in `folder`."""
        from safetensors.torch import load_file

        self.value_head.load_state_dict(load_file(Path(folder) / VALUE_HEAD, device=str(self.device)))
        return self


class ReferencePolicy:
    """The fixed start a policy is held to: the same base without or with the adapter it began with, or a frozen copy.

    as_reference  what to do to the network's adapters while the reference speaks
    """

    def __init__(self, policy: Policy, as_reference: Callable[[Any], AbstractContextManager[None]]):
        self.policy = policy
        self._as_reference = as_reference

    @torch.no_grad()
    def logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Sequence[int]],
        owners: Sequence[int],
        *,
        temperature: float = 1.0,
        share_prefix: bool = True,
    ) -> Tensor:
        """(R, T) log-probabilities of replies, as `Policy.evaluate_replies` takes them."""
        with self._as_reference(self.policy.network):
            return self.policy.evaluate_replies(
                prompts, replies, owners, temperature=temperature, share_prefix=share_prefix
            ).logprobs


def reference_policy(policy: Policy) -> ReferencePolicy:
    """The reference of a policy about to be trained: call it before the first update."""
    if not has_lora(policy.network):
        frozen = Policy(copy.deepcopy(policy.network), policy.tokenizer).eval()
        return ReferencePolicy(frozen.requires_grad_(False), nullcontext)
    if adapter_is_fresh(policy.network):
        return ReferencePolicy(policy, adapters_off)
    keep_reference_adapter(policy.network)
    return ReferencePolicy(policy, reference_adapter)


def load_policy(folder: Path, *, dtype: str = "float32", device: str = "cpu") -> Policy:
    """A policy to speak with, from a folder of weights or of an adapter. Raises ModelRefused."""
    return Policy(*_load_parts(folder, dtype, device, trainable=False)).eval()


def load_policy_with_value(
    folder: Path, *, lora: LoraSettings | None = None, dtype: str = "float32", device: str = "cpu", seed: int = 0
) -> PolicyWithValue:
    """A policy to train: full weights, or adapters on a frozen base when `lora` says so. Raises ModelRefused."""
    network, tokenizer = _load_parts(folder, dtype, device, trainable=True)
    if lora is not None and not has_lora(network):
        network = add_lora(network, lora, seed=seed)
    return PolicyWithValue(network, tokenizer).eval()


def _load_parts(folder: Path, dtype: str, device: str, trainable: bool) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    network = load_network(AutoModelForCausalLM, Path(folder), dtype=dtype, device=device, trainable=trainable)
    return network, load_tokenizer(Path(folder))


def as_policy(policy: Any, tokenizer: Any) -> Policy:
    """`policy` itself, or a bare transformers network taken as one."""
    return policy if isinstance(policy, Policy) else Policy(policy, tokenizer)


def trunk_of(network: Any) -> Any:
    """A network without its output layer; adapters, if any, stay inside its layers."""
    inner = without_wrapper(network)
    return getattr(inner, inner.base_model_prefix, None) or inner.get_decoder()


def logits_of(network: Any, hidden: Tensor) -> Tensor:
    """(..., V) in float32: the output layer of a causal language model applied to hidden states (..., H)."""
    inner = without_wrapper(network)
    scale, cap = _logit_changes(inner)
    logits = inner.get_output_embeddings()(hidden).float()
    if scale != 1.0:
        logits = logits * scale
    return torch.tanh(logits / cap) * cap if cap else logits


def spread(packed: Tensor, mask: Tensor) -> Tensor:
    """(N,) numbers at the True places of `mask`, 0 elsewhere; gradients pass."""
    return packed.new_zeros(mask.shape).masked_scatter(mask, packed)


@torch.no_grad()
def _logit_changes(network: Any) -> tuple[float, float | None]:
    """(scale, cap) that this architecture applies after its output layer; (1, None) for most.

    Found by comparing with the network's own logits, so that no list of architectures is needed.
    Raises  UnsupportedArchitecture if neither a scale nor a soft cap explains them
    """
    if (found := getattr(network, "_nestbox_logit_changes", None)) is not None:
        return found
    was_training = network.training
    network.eval()
    ids = torch.tensor([[1, 2, 3]], device=device_of(network))
    plain = network.get_output_embeddings()(trunk_of(network)(input_ids=ids).last_hidden_state).float()
    wanted = network(input_ids=ids).logits.float()
    network.train(was_training)
    network._nestbox_logit_changes = _explain(plain, wanted, network.config.get_text_config())
    return network._nestbox_logit_changes


def _explain(plain: Tensor, wanted: Tensor, config: Any) -> tuple[float, float | None]:
    if _close(plain, wanted):
        return 1.0, None
    cap = getattr(config, "final_logit_softcapping", None)
    if cap and _close(torch.tanh(plain / cap) * cap, wanted):
        return 1.0, float(cap)
    scale = float((wanted * plain).sum() / (plain * plain).sum())
    if _close(plain * scale, wanted):
        return scale, None
    raise UnsupportedArchitecture(
        f"{config.model_type} changes its logits in a way that is not known here. Use another base."
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-2, atol=1e-2 * float(other.abs().max()))
