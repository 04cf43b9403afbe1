"""What PPO is for: the true reward after equally many samples, ours beside TRL 1.12's PPOTrainer, the last TRL had.

The world is the rehearsal's: its starter policy, its openings, simulated people who rank, an oracle that knows what
they want. For each seed one reward model is learned from their rankings; every way starts from the same policy, asks
the same reward model about equally many replies to the same prompts, and is then judged by the oracle, which no way
has seen, on openings of the test split. What is done is kept, so a study that was stopped goes on where it was:

    python -m tests.benchmarks.oracle_reward FOLDER             # three seeds; --write: and write docs/ppo.md
    python -m tests.benchmarks.oracle_reward FOLDER --seeds 0 --updates 4 --samples 64 --prompts 100   # a quick look
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from rewardtrain.child_environment import trainer_environment
from rewardtrain.hyperparameters import PpoSettings, RewardModelSettings, SamplingSettings
from rewardtrain.seeds import stable_seed
from tests.benchmarks import alternatives
from tests.benchmarks.contest import ROOT

STARTER = ROOT / "rewardtrain" / "starter" / "policy"
DOCUMENT = ROOT / "docs" / "ppo.md"
NOT_WRITTEN_HERE = "# Rules in the reward"  # from here on the page is written by hand
TRL = "trl==1.12.0"
PEOPLE, COMPARISONS, CANDIDATES = 8, 300, 4
SCALE_PROMPTS = 256
JUDGED_REPLIES = 2  # to each test opening
SAMPLING = SamplingSettings(temperature=1.0, max_new_tokens=64)
WAYS = {
    "ours": "Nestbox",
    "trl": "TRL 1.12, 4 passes (its default)",
    "trl_two_passes": "TRL 1.12, 2 passes (as ours)",
}
COLUMNS = {
    "oracle": ("oracle reward", "{:+.3f}"),
    "kl_nats": ("KL, nats", "{:.2f}"),
    "preferred": ("preferred to the start", "{:.1%}"),
    "violation_rate": ("breaks a rule", "{:.1%}"),
    "fluent_rate": ("fluent", "{:.1%}"),
    "distinct_rate": ("distinct", "{:.1%}"),
    "mean_tokens": ("tokens", "{:.1f}"),
    "learned": ("learned reward", "{:+.2f}"),
    "cpu_seconds": ("CPU s", "{:.0f}"),
}
Prompt = list[dict[str, str]]


def openings_of(split: str) -> list[Prompt]:
    """The openings of a split, each as a dialogue, in an order that has nothing to do with where they come from."""
    from rewardtrain.starter.openings import openings

    texts = sorted((one.text for one in openings() if one.split == split), key=lambda text: stable_seed("order", text))
    return [[{"role": "user", "content": text}] for text in texts]


def draw(policy: Any, prompts: Sequence[Prompt], seed: int, purpose: str) -> list[Any]:
    """One reply to each prompt."""
    from rewardtrain.sampling import sample_replies

    seeds = [stable_seed("oracle reward", seed, purpose, index) for index in range(len(prompts))]
    return sample_replies(policy, policy.tokenizer, prompts, settings=SAMPLING, seeds=seeds)


# The reward model


@dataclass(frozen=True)
class Judge:
    """A learned reward model with the scale that PPO reads it on: standard deviations from the start's mean."""

    reward_model: Any
    mean: float
    std: float

    @classmethod
    def load(cls, folder: Path) -> Judge:
        from rewardtrain.reward_model import RewardModel

        scale = json.loads((folder / "scale.json").read_text(encoding="utf-8"))
        return cls(RewardModel.load(folder / "reward_model"), scale["mean"], scale["std"])

    def standardised(self, raw: Tensor, clip: float) -> Tensor:
        return ((raw - self.mean) / self.std).clamp(-clip, clip)


def prepare(folder: Path, seed: int) -> None:
    """Let people rank replies of the start, learn a reward model from it, and fix its scale."""
    from rewardtrain import reward_training
    from rewardtrain.policy import load_policy
    from rewardtrain.rollouts import reward_scale

    if (folder / "scale.json").is_file():
        return
    start, prompts = load_policy(STARTER), openings_of("train")
    trained = reward_training.train_reward_model(
        ranked(start, prompts, seed), base=STARTER, settings=RewardModelSettings(seed=seed)
    )
    trained.reward_model.save(folder / "reward_model")
    some = prompts[:: len(prompts) // SCALE_PROMPTS][:SCALE_PROMPTS]
    replies = [[reply.text] for reply in draw(start, some, seed, "scale")]
    with torch.no_grad():
        mean, std = reward_scale(trained.reward_model.eval().scores, some, replies)
    (folder / "scale.json").write_text(json.dumps({"mean": mean, "std": std}) + "\n", encoding="utf-8")


def ranked(start: Any, prompts: Sequence[Prompt], seed: int) -> list[Any]:
    """Comparisons of the start's replies, ranked by simulated people in turn; equal replies are shown once."""
    from rewardtrain.chat import as_turns
    from rewardtrain.reward_training import RankedComparison
    from rewardtrain.starter.annotators import Annotator

    people = [Annotator(stable_seed("oracle reward", seed, "person", number) % 2**31) for number in range(PEOPLE)]
    asked = sorted(prompts, key=lambda prompt: stable_seed(seed, prompt[0]["content"]))[:COMPARISONS]
    drawn = draw(start, [prompt for prompt in asked for _ in range(CANDIDATES)], seed, "ranked")
    found = []
    for number, prompt in enumerate(asked):
        own = drawn[number * CANDIDATES : (number + 1) * CANDIDATES]
        texts = list(dict.fromkeys(reply.text for reply in own))
        judgement = people[number % PEOPLE].judge(prompt, texts)
        candidates = [as_turns([{"role": "assistant", "content": text}]) for text in texts]
        found.append(
            RankedComparison(
                prompt=as_turns(prompt),
                candidates=candidates,
                ranks=list(judgement.ranks),
                strength=judgement.strength,
                all_bad=judgement.all_bad,
            )
        )
    return found


class AsSequenceClassifier(nn.Module):
    """Our reward model in the form in which TRL's PPOTrainer asks: a backbone, and `score` of its last states.

    TRL reads the score at the reply's last token. Ours is read at all of a reply's tokens and their likelihoods, so
    the backbone gives the finished score at every place and `score` passes it on. It is what our PPO is paid: on the
    same scale, cut in the same way, with the penalty for an empty reply; the one for a reply that never ended is TRL's
    own missing_eos_penalty.
    """

    base_model_prefix = "backbone"

    def __init__(self, judge: Judge, settings: PpoSettings):
        super().__init__()
        self.backbone = _Backbone(judge, settings)
        self.score = nn.Identity()


class _Backbone(nn.Module):
    def __init__(self, judge: Judge, settings: PpoSettings):
        super().__init__()
        self.judge, self.settings = judge, settings
        self.tokenizer = judge.reward_model.tokenizer
        self.opens_reply = self.tokenizer.convert_tokens_to_ids("<|assistant|>")

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """`hidden_states[-1]` is (B, T, 1): the row's reward at each of its places."""
        rows = [ids[mask.bool()].tolist() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        rewards = self.rewards(rows)
        return argparse.Namespace(hidden_states=[rewards[:, None, None].expand(*input_ids.shape, 1)])

    @torch.no_grad()
    def rewards(self, rows: list[list[int]]) -> Tensor:
        """(B,) from rows that hold a dialogue and the reply to it."""
        from rewardtrain.chat import encode_reply
        from rewardtrain.reward_model import EncodedComparison

        comparisons, empty = [], []
        for ids in rows:
            begins = len(ids) - ids[::-1].index(self.opens_reply)
            text = self.tokenizer.decode(ids[begins:], skip_special_tokens=True).strip()
            comparisons.append(EncodedComparison(ids[:begins], [encode_reply(self.tokenizer, text)]))
            empty.append(float(not text))
        raw = torch.cat(self.judge.reward_model.score_encoded(comparisons))
        penalty = self.settings.malformed_penalty * torch.tensor(empty)
        return self.judge.standardised(raw, self.settings.reward_clip) - penalty


# Ways: each makes a policy and saves it


def train_ours(folder: Path, target: Path, seed: int, settings: PpoSettings) -> None:
    from rewardtrain import ppo
    from rewardtrain.policy import load_policy_with_value, reference_policy
    from rewardtrain.rollouts import WeightedReward

    judge = Judge.load(folder)
    policy = load_policy_with_value(STARTER, seed=seed)

    def scores(prompts: Any, replies: Any) -> Any:
        with torch.no_grad():
            return judge.reward_model.scores(prompts, replies)

    reward = WeightedReward(
        "preference", 1.0, scores, mean=judge.mean, std=judge.std, by_token=judge.reward_model.token_scores
    )
    ppo.train_policy(
        openings_of("train"), policy=policy, ref_policy=reference_policy(policy), rewards=[reward], settings=settings
    )
    policy.save(target)


def train_trl(folder: Path, target: Path, seed: int, settings: PpoSettings, passes: int | None = None) -> None:
    """TRL's PPOTrainer with what means the same set to the same, and everything else as it comes.

    passes  over each batch; None is TRL's own default
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    judge = Judge.load(folder)
    tokenizer = AutoTokenizer.from_pretrained(STARTER, padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(STARTER, dtype=torch.float32) for _ in range(2))
    rows = [
        {"input_ids": tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)}
        for prompt in openings_of("train")
    ]
    more = {} if passes is None else {"num_ppo_epochs": passes}
    config = PPOConfig(
        output_dir=str(target / "trainer"), seed=seed,
        # what is measured: equally many samples of the same kind
        total_episodes=settings.updates * settings.samples_per_update, temperature=SAMPLING.temperature,
        response_length=SAMPLING.max_new_tokens, stop_token="eos",
        # what means the same
        per_device_train_batch_size=settings.samples_per_update, gradient_accumulation_steps=1,
        num_mini_batches=settings.samples_per_update // settings.minibatch_size,
        learning_rate=settings.learning_rate, warmup_steps=settings.warmup_updates, kl_coef=settings.kl_coef,
        missing_eos_penalty=settings.malformed_penalty,
        # the machine
        use_cpu=True, bf16=False, gradient_checkpointing=False, num_sample_generations=0, report_to=[],
        save_strategy="no", logging_strategy="no", disable_tqdm=True, **more,
    )  # fmt: skip
    PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference,
        reward_model=AsSequenceClassifier(judge, settings), value_model=value_model(folder, judge),
        train_dataset=Dataset.from_list(rows),
    ).train()  # fmt: skip
    policy.save_pretrained(target)
    tokenizer.save_pretrained(target)


def value_model(folder: Path, judge: Judge) -> Any:
    """The reward model's network with its head, as TRL's own example begins its value model."""
    from transformers import AutoModelForSequenceClassification

    network = AutoModelForSequenceClassification.from_pretrained(
        folder / "reward_model", num_labels=1, dtype=torch.float32
    )
    with torch.no_grad():
        network.score.weight.copy_(judge.reward_model.head.weight / judge.std)
    return network


TRAINERS: dict[str, Callable[[Path, Path, int, PpoSettings], None]] = {
    "ours": train_ours,
    "trl": train_trl,
    "trl_two_passes": lambda folder, target, seed, settings: train_trl(folder, target, seed, settings, settings.passes),
}


def train(way: str, folder: Path, seed: int, settings: PpoSettings) -> None:
    """In a process of its own: make the way's policy, and note what it took."""
    target = folder / way
    target.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    started = time.process_time()
    TRAINERS[way](folder, target, seed, settings)
    (target / "took.json").write_text(json.dumps({"cpu_seconds": time.process_time() - started}) + "\n", "utf-8")


# Judging


def judge_way(way: str, folder: Path, seed: int, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The way's figures on test openings, and the oracle's score of each of its replies."""
    from rewardtrain.gate_run import kl_to
    from rewardtrain.policy import load_policy
    from rewardtrain.starter import measure

    start, judge = load_policy(STARTER), Judge.load(folder)
    policy = start if way == "start" else load_policy(folder / way)
    asked = [prompt for prompt in prompts for _ in range(JUDGED_REPLIES)]
    before = [reply.text for reply in draw(start, asked, seed, "before")]
    drawn = draw(policy, asked, seed, "start again" if way == "start" else "after")
    texts = [reply.text for reply in drawn]
    with torch.no_grad():
        raw = torch.cat(judge.reward_model.scores(asked, [[text] for text in texts]))
    took = folder / way / "took.json"
    return {
        **measure.figures(zip(asked, texts, strict=True)).as_dict(),
        "distinct_rate": len(set(texts[::JUDGED_REPLIES])) / len(prompts),
        "mean_tokens": sum(len(reply.token_ids) for reply in drawn) / len(drawn),
        "preferred": measure.preference(asked, before, texts).win_rate,
        "kl_nats": _mean(kl_to(start, policy, asked, drawn, SAMPLING)),
        "learned": float(judge.standardised(raw, float("inf")).mean()),
        "scores": [one.total for one in measure.oracle_scores(zip(asked, texts, strict=True))],
        **(json.loads(took.read_text(encoding="utf-8")) if took.is_file() else {}),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# The study


def study(options: argparse.Namespace) -> dict[int, dict[str, dict[str, Any]]]:
    """What each way gave, by seed and way; only what is not there yet is done."""
    prompts = openings_of("test")[: options.prompts]
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for seed in options.seeds:
        folder = options.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder, seed)
        found[seed] = {}
        for way in ("start", *options.ways):
            kept = folder / f"{way}.json"
            if not kept.is_file():
                if way != "start":
                    _train_apart(way, options, seed)
                kept.write_text(json.dumps(judge_way(way, folder, seed, prompts)) + "\n", encoding="utf-8")
            found[seed][way] = json.loads(kept.read_text(encoding="utf-8"))
            own = found[seed][way]
            Console(stderr=True).print(f"seed {seed}, {way}: {_mean(own['scores']):+.3f}, KL {own['kl_nats']:.2f}")
    return found


def _train_apart(way: str, options: argparse.Namespace, seed: int) -> None:
    """Train in a process of its own, TRL's with the packages that it needs."""
    python = sys.executable if way == "ours" else alternatives.python(TRL)
    command = [
        python, "-m", "tests.benchmarks.oracle_reward", str(options.folder.resolve()), "--train", way,
        "--seeds", str(seed), "--updates", str(options.updates), "--samples", str(options.samples),
    ]  # fmt: skip
    environment = trainer_environment(1) | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    log = options.folder / f"seed-{seed}" / f"{way}.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{way} with seed {seed} did not end well; {log} says why.")


def settings_of(options: argparse.Namespace, seed: int) -> PpoSettings:
    """Our defaults; a quick look takes fewer samples."""
    minibatch = min(PpoSettings.minibatch_size, options.samples)
    return PpoSettings(
        updates=options.updates, samples_per_update=options.samples, minibatch_size=minibatch, seed=seed,
        sampling=SAMPLING,
    )  # fmt: skip


# The report


def report(found: dict[int, dict[str, dict[str, Any]]]) -> str:
    """Tables in Markdown: each seed, the mean over seeds, and how far ours is ahead."""
    heads = [title for title, _ in COLUMNS.values()]
    lines = [f"| seed | | {' | '.join(heads)} |", f"|---|---|{'---:|' * len(heads)}"]
    for seed, ways in found.items():
        lines += [_row(str(seed), way, _figures(own)) for way, own in ways.items()]
    for way in next(iter(found.values())):
        every = [_figures(ways[way]) for ways in found.values()]
        means = {name: _mean([one[name] for one in every]) for name in COLUMNS if all(name in one for one in every)}
        lines.append(_row("**mean**", way, means))
    return "\n".join([*lines, "", *_gaps(found)])


def _figures(own: dict[str, Any]) -> dict[str, float]:
    return {"oracle": _mean(own["scores"]), **{name: own[name] for name in COLUMNS if own.get(name) is not None}}


def _row(seed: str, way: str, figures: dict[str, float]) -> str:
    cells = [text.format(figures[name]) if name in figures else "" for name, (_, text) in COLUMNS.items()]
    return f"| {seed} | {WAYS.get(way, 'the start')} | {' | '.join(cells)} |"


def _gaps(found: dict[int, dict[str, dict[str, Any]]]) -> list[str]:
    """How far ours is ahead of each other way, paired by reply, over all seeds."""
    said = []
    for way in WAYS:
        both = [(ways["ours"], ways[way]) for ways in found.values() if way != "ours" and {"ours", way} <= ways.keys()]
        if both:
            gain, error, each = gap([(ours["scores"], other["scores"]) for ours, other in both])
            seeds = ", ".join(f"{one:+.3f}" for one in each)
            said.append(f"- Oracle reward of Nestbox above {WAYS[way]}: {gain:+.3f} ± {error:.3f} (by seed {seeds}).")
    return said


def gap(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float, list[float]]:
    """(mean difference, half of its 95 % interval, difference of each seed) of scores of ours and of another way.

    The interval is that of the replies drawn, not of the training: three seeds say too little about that.
    """
    from rewardtrain.gate import mean_and_error

    each = [[ours - other for ours, other in zip(*pair, strict=True)] for pair in pairs]
    # replies to one opening stand together and count once
    openings = [_mean(own[at : at + JUDGED_REPLIES]) for own in each for at in range(0, len(own), JUDGED_REPLIES)]
    gain, error = mean_and_error(openings)
    return gain, 1.96 * error, [_mean(own) for own in each]


PAGE = """# PPO beside TRL's

What counts is not the learned reward, which any optimiser can push up, but what the people meant. In the rehearsal's
world that is known: an oracle that no training sees. This part of the page is written by

    python -m tests.benchmarks.oracle_reward FOLDER --write

and compares the oracle's reward after equally many samples: {samples:,} replies, {updates} updates of {each}. For each
seed, {comparisons} comparisons of the starter's replies are ranked by {people} simulated people, who err in about one
pair of seven, and one reward model learns from them. All ways start from the starter, answer the {train:,} openings of
the training split, and are paid by that reward model, standardised over the starter's replies and cut at ±{clip:g}.
Judged are {judged} replies at temperature 1 to each of {prompts} openings of the test split; KL is that of those
replies to the starter, and preferred are those that the oracle prefers to the starter's, ties left out.

**TRL** is {trl}, the last that has a PPOTrainer, with its own defaults for all but these. *The same samples:*
temperature 1, at most {tokens} tokens, `stop_token="eos"`, the batch of {each}. *What means the same, set to ours:*
learning rate {rate:g} with {warmup} updates of warm-up and a linear fall (TRL's default rate of 3e-6 hardly moves so
small a network in {updates} updates), `kl_coef` {kl:g}, minibatches of {minibatch}, `missing_eos_penalty`
{malformed:g}. *Its own:* {passes} passes over each batch (ours makes {ours}); a value model that begins as the reward
model, as in TRL's example; no clipping of the gradient; clipping ranges, GAE and the weight of the value loss, which
are the same numbers as ours.

**Ours** asks the same reward model and uses what it can say besides: what a reply would score if it ended after each
of its tokens. Each token is paid by how much it moved that score, so that a reply's sum is the same as TRL's and each
token learns from what it did (`rewardtrain/credit.py`; `credit=reply` pays it all at the end). Values come from a
linear head on the policy, which learns at a rate of its own.

{table}

± is 95 % over openings: how well the difference of these policies is known, not how much another seed would change.
"""


def page(found: dict[int, dict[str, dict[str, Any]]], options: argparse.Namespace) -> str:
    """The whole document."""
    settings = settings_of(options, 0)
    return PAGE.format(
        samples=settings.updates * settings.samples_per_update, updates=settings.updates,
        each=settings.samples_per_update, comparisons=COMPARISONS, people=PEOPLE, train=len(openings_of("train")),
        clip=settings.reward_clip, judged=("no", "one", "two", "three")[JUDGED_REPLIES], trl=TRL.replace("==", " "),
        prompts=len(openings_of("test")[: options.prompts]), tokens=SAMPLING.max_new_tokens,
        rate=settings.learning_rate, warmup=settings.warmup_updates, kl=settings.kl_coef,
        minibatch=settings.minibatch_size, malformed=settings.malformed_penalty, passes=4, ours=settings.passes,
        table=report(found),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where reward models, policies and figures are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--updates", type=int, default=PpoSettings.updates)
    parser.add_argument("--samples", type=int, default=PpoSettings.samples_per_update, help="in every update")
    parser.add_argument("--prompts", type=int, default=10_000, help="test openings to judge on; default: all")
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--train", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.test")
    django.setup()
    torch.set_num_threads(1)
    if options.train:
        seed = options.seeds[0]
        train(options.train, options.folder / f"seed-{seed}", seed, settings_of(options, seed))
        return
    found = study(options)
    Console(width=180).print(report(found), markup=False, highlight=False)
    if options.write:
        _, mark, by_hand = DOCUMENT.read_text(encoding="utf-8").partition(NOT_WRITTEN_HERE)
        DOCUMENT.write_text(f"{page(found, options).rstrip()}\n\n{mark}{by_hand}", encoding="utf-8")


if __name__ == "__main__":
    main()
