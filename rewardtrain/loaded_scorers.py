"""Reward models and rule models in a worker's memory: the few that were asked last, each read once."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from django.conf import settings

from feedback.models import ModelVersion
from rewardtrain.backends.transformers_local import chosen_device, loaded_policies
from rewardtrain.errors import CannotChoose, LearningError
from rewardtrain.model_files import hold_to, verified_folder
from rewardtrain.reranked_replies import RuleScorer, load_rule_scorer
from rewardtrain.rollouts import Scorer

logger = logging.getLogger(__name__)
REST_SECONDS = 60.0  # a model that could not be read is not tried again for so long


class LoadedScorers:
    """Scorers by content, as many of each kind as policies. One lock with the policies', for loading and computing."""

    def __init__(self) -> None:
        self.lock = loaded_policies.lock
        self._loaded: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}

    def reward_model(self, version: ModelVersion) -> Scorer:
        """Raises CannotChoose when its files are missing, changed, or anything but data."""
        return self._get(version, _read_reward_model)

    def rule_model(self, version: ModelVersion) -> RuleScorer:
        """Raises CannotChoose when its files are missing, changed, or anything but data."""
        return self._get(version, load_rule_scorer)

    def forget_all(self) -> None:
        """Free the memory, and try again what could not be read."""
        with self.lock:
            self._loaded.clear()
            self._failed.clear()

    def __len__(self) -> int:
        return len(self._loaded)

    def _get(self, version: ModelVersion, read: Callable[..., Any]) -> Any:
        key = (version.kind, version.content_hash or f"{version.pk} {version.location}")
        with self.lock:
            if key not in self._loaded:
                self._refuse_if_just_failed(key)
                self._make_room(version.kind)
                self._loaded[key] = self._read(version, key, read)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def _refuse_if_just_failed(self, key: tuple[str, str]) -> None:
        since, reason = self._failed.get(key, (0.0, ""))
        if reason and time.monotonic() - since < REST_SECONDS:
            raise CannotChoose(reason)

    def _read(self, version: ModelVersion, key: tuple[str, str], read: Callable[..., Any]) -> Any:
        device = chosen_device()
        try:
            folder, found = verified_folder(version)
            hold_to(version, found)
            scorer = read(folder, dtype="bfloat16" if device.startswith("cuda") else "float32", device=device)
        except Exception as err:
            said = err.message if isinstance(err, LearningError) else f"{type(err).__name__}: {str(err)[:200]}"
            reason = f"{version} cannot be read, so nothing chooses. {said}"[:300]
            self._failed[key] = (time.monotonic(), reason)
            logger.warning("scorer not loaded model=%s", version.pk, exc_info=err)
            raise CannotChoose(reason) from err
        self._failed.pop(key, None)
        logger.info("scorer loaded model=%s device=%s", version.pk, device)
        return scorer

    def _make_room(self, kind: str) -> None:
        own = [key for key in self._loaded if key[0] == kind]
        while len(own) >= settings.GENERATION_MODELS_IN_MEMORY:
            del self._loaded[own.pop(0)]
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _read_reward_model(folder: Any, *, dtype: str, device: str) -> Scorer:
    from rewardtrain.reward_model import RewardModel

    return RewardModel.load(folder, dtype=dtype, device=device).scores


loaded_scorers = LoadedScorers()
