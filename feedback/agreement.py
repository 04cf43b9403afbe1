"""How far annotators agree, and how certain a share is. Pure functions."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

Z_95 = 1.959963984540054
BOOTSTRAP_DRAWS = 400
Distances = dict[tuple[int, int], float]  # {(a, b), a < b: squared distance}


@dataclass(frozen=True)
class Share:
    """A share of a count, with its 95 % Wilson interval; hits may hold halves, for what is half right.

    effective  how many independent ones the total is worth for the interval; all of them when left out
    """

    hits: float
    total: int
    effective: float | None = field(default=None, compare=False)

    @property
    def value(self) -> float | None:
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float] | None:
        if not self.total:
            return None
        worth = self.total if self.effective is None else self.effective
        return wilson_interval(self.hits / self.total * worth, worth)


def clustered_share(groups: Iterable[Sequence[float]]) -> Share:
    """The share of credits (0 to 1) that came in groups, such as the pairs of a ranking, which rise and fall together.

    The interval is that of as many independent credits as would vary as these groups do: Wilson's with the design
    effect of a ratio estimated over groups. Between "every credit is its own" and "a group says one thing".
    Source  Rao and Scott 1992, Biometrics 48, 577-585; Kish 1965, Survey Sampling
    """
    counted = [(math.fsum(group), len(group)) for group in groups if len(group)]
    total = sum(size for _, size in counted)
    if not total:
        return Share(0.0, 0)
    hits = math.fsum(credit for credit, _ in counted)
    share = hits / total
    fewest = total**2 / sum(size**2 for _, size in counted)
    variance = share * (1 - share) / total
    effective = fewest
    if len(counted) > 1 and variance > 0:
        between = math.fsum((credit - share * size) ** 2 for credit, size in counted) / total**2
        between *= len(counted) / (len(counted) - 1)
        effective = total * variance / between if between > 0 else total
    return Share(hits, total, min(max(effective, fewest), total))


def wilson_interval(hits: float, total: float, z: float = Z_95) -> tuple[float, float]:
    """The interval a share lies in with 95 % confidence.

    Raises  ValueError when total is not positive
    Source  Wilson 1927, J. Am. Stat. Assoc. 22, 209-212
    """
    if total <= 0:
        raise ValueError("A share of nothing has no interval.")
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def pair_agreement(answers: Iterable[Iterable[Mapping[int, int]]]) -> Share:
    """How often two annotators put a pair of replies in the same order, over pairs neither of them ties.

    answers  per comparison, the ranks {candidate: rank} of each annotator
    Source   Ouyang et al. 2022, arXiv:2203.02155, section 3.4 (there as a mean over labelers)
    """
    return clustered_share(_same_orders(list(rankings)) for rankings in answers)


def _same_orders(rankings: Sequence[Mapping[int, int]]) -> list[float]:
    """1 for each pair of one comparison that two annotators put in the same order, 0 for the others."""
    found = []
    for one, other in combinations(rankings, 2):
        for a, b in combinations(sorted(set(one) & set(other)), 2):
            first, second = one[a] - one[b], other[a] - other[b]
            if first and second:
                found.append(float((first > 0) == (second > 0)))
    return found


def pair_orders(answers: Iterable[Mapping[str, Mapping[int, int]]]) -> list[dict[str, int]]:
    """Every pair of replies as a thing that people judged: {annotator: 1 the first is better, 0 a tie, -1 the second}.

    answers  per comparison, the ranks {candidate: rank} of each annotator; candidates count by their order

    >>> pair_orders([{"ann": {7: 1, 9: 2}, "ben": {7: 1, 9: 1}}])
    [{'ann': 1, 'ben': 0}]
    """
    found = []
    for rankings in answers:
        candidates = sorted({candidate for ranks in rankings.values() for candidate in ranks})
        for a, b in combinations(candidates, 2):
            orders = {who: ranks[b] - ranks[a] for who, ranks in rankings.items() if a in ranks and b in ranks}
            if orders:
                found.append({who: (step > 0) - (step < 0) for who, step in orders.items()})
    return found


def pairwise_kappa(units: Iterable[Mapping[str, int]]) -> dict[tuple[str, str], float | None]:
    """Cohen's kappa of every two annotators over the things that both judged; in the order of their names.

    units  per thing, the value each annotator gave it
    """
    shared: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for values in units:
        for one, other in combinations(sorted(values), 2):
            shared.setdefault((one, other), []).append((values[one], values[other]))
    return {names: cohen_kappa(pairs) for names, pairs in sorted(shared.items())}


def cohen_kappa(pairs: Sequence[tuple[int, int]]) -> float | None:
    """How far two people agree beyond chance, as each gives each answer; None where chance alone makes them agree.

    pairs   the answers of both to the same thing, one pair a thing; that answers lie near each other counts for nothing
    Source  Cohen 1960, Educational and Psychological Measurement 20, 37-46
    """
    total = len(pairs)
    ones, others = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    by_chance = sum(count * others[value] for value, count in ones.items())  # times the square of the total
    if by_chance == total * total:
        return None
    same = sum(a == b for a, b in pairs)
    return (total * same - by_chance) / (total * total - by_chance)


def noise_ceiling(agreement: float) -> float | None:
    """The best accuracy a model can show against annotators who agree this often; None below chance.

    With each right with probability a, two agree with p = 2a² − 2a + 1, so a = (1 + √(2p − 1)) / 2.
    """
    return (1 + math.sqrt(2 * agreement - 1)) / 2 if agreement >= 0.5 else None


# Several people on one scale


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha with its 95 % bootstrap interval; no value where nothing can be told.

    units     things that two or more people judged
    is_alike  everybody gave the same answer everywhere, so that alpha is undefined although nobody disagreed
    """

    value: float | None
    interval: tuple[float, float] | None
    units: int
    is_alike: bool = False


def same_share(units: Iterable[Sequence[int]]) -> Share:
    """How often two people gave the same thing the same answer: raw agreement, which knows no chance.

    units  the values each thing was given; all pairs of one thing rise and fall together
    """
    return clustered_share([float(a == b) for a, b in combinations(values, 2)] for values in units)


def krippendorff_alpha(units: Iterable[Sequence[int]], *, is_ordered: bool = True) -> float | None:
    """Agreement of any number of people: 1 is perfect, 0 is chance; None where it is undefined.

    units       the values each thing was given; those with fewer than two are passed over
    is_ordered  whether the values lie on a scale, so that near ones differ less (ordinal), or are mere names (nominal)
    Source      Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", with the ordinal or nominal metric
    """
    counted = Counter(tuple(sorted(values)) for values in units if len(values) > 1)
    return _alpha(counted, _ordinal_distances if is_ordered else _nominal_distances)


def alpha_of(
    units: Iterable[Sequence[int]], *, draws: int = BOOTSTRAP_DRAWS, seed: int = 0, is_ordered: bool = True
) -> Alpha:
    """Alpha and how sure it is: percentiles over `draws` times as many things, drawn from these with replacement.

    is_ordered  whether the values lie on a scale, or are mere names
    Source  Hayes and Krippendorff 2007, Communication Methods and Measures 1, 77-89 (there over pairs of values; over
            whole things here, because answers about the same thing are not independent)
    """
    counted = Counter(tuple(sorted(values)) for values in units if len(values) > 1)
    return _alpha_of(tuple(sorted(counted.items())), draws, seed, is_ordered)


@lru_cache(maxsize=512)
def _alpha_of(counted: tuple[tuple[tuple[int, ...], int], ...], draws: int, seed: int, is_ordered: bool) -> Alpha:
    distances = _ordinal_distances if is_ordered else _nominal_distances
    patterns, counts = [pattern for pattern, _ in counted], [count for _, count in counted]
    total = sum(counts)
    value = _alpha(dict(counted), distances)
    if value is None:
        return Alpha(None, None, total, is_alike=total > 0)
    chance = random.Random(seed)
    drawn = (_alpha(Counter(chance.choices(patterns, counts, k=total)), distances) for _ in range(draws))
    # a draw in which everybody says the same holds no disagreement
    found = sorted(1.0 if one is None else one for one in drawn)
    low, high = (found[round(share * (draws - 1))] for share in (0.025, 0.975))
    return Alpha(value, (low, high), total)


def _ordinal_distances(margins: Mapping[int, int]) -> Distances:
    """As far apart as there are answers from one to the other."""
    values = sorted(margins)
    return {
        (a, b): (sum(margins[c] for c in values if a <= c <= b) - (margins[a] + margins[b]) / 2) ** 2
        for a, b in combinations(values, 2)
    }


def _nominal_distances(margins: Mapping[int, int]) -> Distances:
    return dict.fromkeys(combinations(sorted(margins), 2), 1.0)


def _alpha(
    counted: Mapping[tuple[int, ...], int],
    distances: Callable[[Mapping[int, int]], Distances] = _ordinal_distances,
) -> float | None:
    """1 - observed over expected disagreement, from {sorted values of a thing: how many things}."""
    margins: Counter[int] = Counter()
    for pattern, count in counted.items():
        for value in pattern:
            margins[value] += count
    total = sum(margins.values())
    distance = distances(margins)
    expected = math.fsum(margins[a] * margins[b] * square for (a, b), square in distance.items())
    if not expected:
        return None
    observed = math.fsum(
        count / (len(pattern) - 1) * math.fsum(distance.get(pair, 0.0) for pair in combinations(pattern, 2))
        for pattern, count in counted.items()
    )
    return 1 - (total - 1) * observed / expected
