"""Low-rank adapters through peft, and loading networks from folders that hold whole weights or an adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rewardtrain.checkpoints import ADAPTER_CONFIG, base_of_adapter, check_model_folder
from rewardtrain.errors import ModelRefused
from rewardtrain.hyperparameters import LoraSettings

TRAINED, REFERENCE, REWARD = "default", "reference", "reward"  # adapters on one network; peft calls the first one so


def add_lora(network: Any, settings: LoraSettings, *, task: str = "CAUSAL_LM", seed: int = 0) -> Any:
    """`network` with trainable adapters and everything else frozen; as it is when the settings say rank 0.

    task  peft's name for the kind of network: CAUSAL_LM, or FEATURE_EXTRACTION for a bare trunk
    """
    if not settings.is_on:
        return network
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type=task,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules) or "all-linear",
        fan_in_fan_out=any(type(module).__name__ == "Conv1D" for module in network.modules()),  # GPT-2's way round
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        return get_peft_model(network, config)


def has_lora(network: nn.Module) -> bool:
    """True if peft wraps this network."""
    return hasattr(network, "disable_adapter") and hasattr(network, "get_base_model")


def without_wrapper(network: Any) -> Any:
    """The Hugging Face network itself; adapters, if any, stay inside its layers."""
    return network.get_base_model() if has_lora(network) else network


@contextmanager
def adapters_off(network: Any) -> Iterator[None]:
    """Within it the network is the base it started from; nothing changes for one without adapters."""
    if not has_lora(network):
        yield
        return
    with network.disable_adapter():
        yield


def adapter_is_fresh(network: Any) -> bool:
    """True if the trained adapter still changes nothing: one of its two factors starts at zero."""
    from peft import get_peft_model_state_dict

    weights = get_peft_model_state_dict(network, adapter_name=TRAINED)
    return not any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name or "embedding_B" in name)


def keep_reference_adapter(network: Any) -> None:
    """Keep what the trained adapter is now as a second one that no gradient reaches."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = {name: one.clone() for name, one in get_peft_model_state_dict(network, adapter_name=TRAINED).items()}
    network.add_adapter(REFERENCE, network.peft_config[TRAINED])
    set_peft_model_state_dict(network, weights, adapter_name=REFERENCE)
    network.set_adapter(TRAINED)


def reference_adapter(network: Any) -> AbstractContextManager[None]:
    """Within it the network speaks through the adapter that was kept."""
    return through_adapter(network, REFERENCE)


@contextmanager
def through_adapter(network: Any, name: str) -> Iterator[None]:
    """Within it the network speaks through another of its adapters; afterwards all is as it was, come what may."""
    before = network.active_adapter
    trained = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.set_adapter(name, inference_mode=True)
    try:
        yield
    finally:
        network.set_adapter(before)
        for parameter, was_trained in trained:
            parameter.requires_grad_(was_trained)


def add_frozen_adapter(network: Any, folder: Path, name: str) -> None:
    """Put the adapter saved in `folder` beside those `network` has; it is not the one that speaks, nor trained.

    Raises  ModelRefused when the folder holds anything but data, or the adapter does not fit
    """
    check_model_folder(folder, needs=(ADAPTER_CONFIG,))
    was_training = network.training
    device = str(next(network.parameters()).device)
    with torch.random.fork_rng(devices=[]):  # a new adapter is drawn before its weights are read
        found = network.load_adapter(str(folder), adapter_name=name, is_trainable=False, torch_device=device)
    network.train(was_training)
    if misfits := [*found.missing_keys, *found.unexpected_keys]:
        raise ModelRefused(f"{folder} does not fit its base: {len(misfits)} weights differ, among them {misfits[0]}.")


def load_network(
    auto_class: Any, folder: Path, *, dtype: str = "float32", device: str = "cpu", trainable: bool = False
) -> Any:
    """A network from a folder: whole weights, or an adapter on the base its configuration names.

    auto_class  transformers' AutoModel or AutoModelForCausalLM
    trainable   whether an adapter found there goes on being trained
    Raises      ModelRefused when the folder (or the adapter's base) holds anything but data
    """
    folder = Path(folder)
    if not (folder / ADAPTER_CONFIG).is_file():
        return _load_whole(auto_class, folder, dtype, device)
    check_model_folder(folder, needs=(ADAPTER_CONFIG,))
    from peft import PeftModel

    base = _load_whole(auto_class, base_of_adapter(folder), dtype, device)
    return PeftModel.from_pretrained(base, str(folder), is_trainable=trainable, torch_device=device)


def _load_whole(auto_class: Any, folder: Path, dtype: str, device: str) -> Any:
    check_model_folder(folder)
    if not any(folder.glob("*.safetensors")):
        raise ModelRefused(f"{folder} holds no .safetensors weights.")
    with torch.random.fork_rng(devices=[]), without_progress_bars():
        torch.manual_seed(0)  # parts nobody saved, such as an encoder's unused pooler, start the same each time
        network, loaded = auto_class.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if lacking := sorted(key for key in loaded["missing_keys"] if "pooler" not in key):
        raise ModelRefused(
            f"{folder} lacks {len(lacking)} weights that its architecture needs, among them {lacking[0]}."
        )
    return network.to(device)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every file it reads or writes; a run has a display of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def save_network(network: Any, tokenizer: Any, folder: Path) -> None:
    """Write a network (or its adapter alone) and its tokenizer: safetensors and text only."""
    chosen = {"selected_adapters": [TRAINED]} if has_lora(network) else {}
    with without_progress_bars():
        network.save_pretrained(str(folder), **chosen)
    tokenizer.save_pretrained(str(folder))
    (Path(folder) / "README.md").unlink(missing_ok=True)  # peft's empty model card


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)


def trainable_parameters(*modules: nn.Module | None) -> list[nn.Parameter]:
    """Parameters that gradients reach, each once and in a fixed order."""
    found: dict[int, nn.Parameter] = {}
    for module in modules:
        for parameter in module.parameters() if module is not None else ():
            if parameter.requires_grad:
                found.setdefault(id(parameter), parameter)
    return list(found.values())
