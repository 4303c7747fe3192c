"""How a block of sample headlines is made: choices, their score, the class, the text.

    uniforms -> signals -> score -> class -> texts -> damage

`fakenews.data.sample` is the door to this; the words are in `sample_words`.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fakenews.data import sample_words as words

CLASSES = ("fake", "real")
BLOCK = 4096

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
# A choice for each row, by the name of what is chosen.
Choices = dict[str, Ints]

# How much each signal counts in the score, and how wide the noise is.
_WEIGHTS = {
    "opener": 1.2,
    "modifier": 1.2,
    "attribution": 1.2,
    "claim": 1.5,
    "interaction": 1.0,
    "lead": 0.45,
    "locator": 0.35,
    "detail": 0.45,
    "ending": 0.8,
    "case": 0.8,
    "emphasis": 1.0,
    "figures": 0.7,
}
_NOISE = 0.8
# A higher score is fake, a lower one real; the least clear candidates, those nearer than
# the margin, are dropped.
_THRESHOLD = 0.2
_MARGIN = 1.2
# How often an optional part is left out.
_ABSENT = {
    "opener": 0.3,
    "lead": 0.5,
    "modifier": 0.2,
    "locator": 0.55,
    "detail": 0.3,
    "attribution": 0.25,
    "tail": 0.3,
    "suffix": 0.98,
}
# How often a headline is in Title Case, has capitals, writes numbers as figures; and how
# these lean: without, with; for figures without a number, in words, in figures.
_SWITCHES = {"case": 0.35, "emphasis": 0.12, "figures": 0.45}
_SWITCH_LEANS = {"case": (-0.3, 0.6), "emphasis": (-0.1, 1.0), "figures": (0.0, 0.6, -0.6)}
_QUOTES = ("", "“", '"'), ("", "”", '"')
_EXACT, _NEAR = 0.02, 0.02  # shares of repeated headlines
_BREAK, _SPACES, _MOJIBAKE = 0.01, 0.015, 0.02  # shares of damaged ones
_ODD_SPACES = ("  ", "\u00a0", " \t")
_BREAKABLE = ("\u00a0", "\u2019 ")  # a hard space, a typographic apostrophe


def block(
    seed: int, number: int, *, rate: float, label_noise: float, topics: float, rule: float
) -> pa.Table:
    """The `BLOCK` rows of block `number`: columns `text` and `label` (strings).

    Args:
        seed: The first half of the key of all that is random here.
        number: The other half: which block this is, from 0.
        rate: Share of `fake`.
        label_noise: Share of flipped labels.
        topics: Share of headlines from new topics.
        rule: Share of the signals' values that lean the other way.

    Returns:
        The rows; how many are fake varies as chance has it.
    """
    lexicon = _lexicon()
    draw = _Uniforms(seed, number)
    # More candidates than rows: enough of each class at all but extreme rates.
    count = 3 * BLOCK
    signals = _signals(lexicon, draw, count, topics)
    noise = _NOISE * (draw(count) + draw(count) + draw(count) - 1.5)
    score = _score(lexicon, signals, 0.0) + noise

    fake = draw(BLOCK) < rate
    picked = np.where(
        fake,
        _take_turns(score > _THRESHOLD + _MARGIN, fake),
        _take_turns(score < _THRESHOLD - _MARGIN, ~fake),
    )
    source, near = _repeats(draw)
    picked, fake = picked[source], fake[source]
    signals = {name: choice[picked] for name, choice in signals.items()}
    if rule:
        # The same texts, and as many fakes as before: those of the highest new score.
        rank = np.argsort(-(_score(lexicon, signals, rule) + noise[picked]), kind="stable")
        fake = np.isin(np.arange(BLOCK), rank[: fake.sum()])
    # As many flips each way as keep the class rate.
    chance = draw(BLOCK) < label_noise / (2 * rate * (1 - rate))
    label = np.where(chance, draw(BLOCK) < rate, fake)

    text = _texts(lexicon, draw, signals, source, near)
    labels = pa.array(CLASSES).take(pa.array(np.where(label, 0, 1)))
    return pa.table({"text": _damage(draw, text), "label": labels})


class _Uniforms:
    """Numbers in [0, 1) from the raw bits of Philox, the same in every numpy release."""

    def __init__(self, seed: int, number: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, number], dtype=np.uint64))

    def __call__(self, count: int) -> Floats:
        # 32 of the 64 bits: so far below 1 that no rounding below can reach it.
        high = self._bits.random_raw(count) >> np.uint64(32)
        return high.astype(np.float64) * 2.0**-32


def _signals(lexicon: "_Lexicon", draw: _Uniforms, count: int, topics: float) -> Choices:
    """All that the label depends on, drawn without looking at the label."""
    known, new = len(words.TOPICS), len(words.NEW_TOPICS)
    drifted, u = draw(count) < topics, draw(count)
    topic = np.where(drifted, known + _below(u, new), _below(u, known))
    claim = _below(draw(count), len(words.CLAIMS))
    chosen = {
        "topic": topic,
        "claim": claim,
        "interaction": lexicon.group[topic] * len(words.CLAIMS) + claim,
    }
    for name in ("opener", "modifier", "attribution", "lead", "locator", "detail", "ending"):
        chosen[name] = _choose(draw(count), len(lexicon.lean[name]), _ABSENT.get(name))
    for name, share in _SWITCHES.items():
        chosen[name] = (draw(count) < share).astype(np.int64)
    phrases = ("lead", "locator", "detail", "attribution")
    number = [lexicon.numeric[lexicon.slot[name][chosen[name]]] for name in phrases]
    chosen["figures"] = np.where(np.any(number, axis=0), 1 + chosen["figures"], 0)
    return chosen


def _score(lexicon: "_Lexicon", signals: Choices, rule: float) -> Floats:
    """How fake each row is: (N,). A share `rule` of each signal's values is turned around."""
    score = np.zeros(len(signals["topic"]))
    for number, (name, weight) in enumerate(_WEIGHTS.items()):
        lean = lexicon.lean[name]
        # Which values turn first is drawn once and for all, so drifts are comparable.
        order = np.argsort(_Uniforms(0, number)(len(lean)), kind="stable")
        sign = np.ones(len(lean))
        sign[order[: round(rule * len(lean))]] = -1
        score += weight * (sign * lean)[signals[name]]
    return score


def _below(u: Floats, size: int | Ints) -> Ints:
    position: Ints = (u * size).astype(np.int64)
    return position


def _choose(u: Floats, size: int, absent: float | None) -> Ints:
    """A choice of `size`, where the first means absence and has a share of its own."""
    if absent is None:
        return _below(u, size)
    return np.where(u < absent, 0, 1 + _below((u - absent) / (1 - absent), size - 1))


def _take_turns(candidate: Bools, wanted: Bools) -> Ints:
    """For the k-th wanted row the k-th candidate, from the start again when they run out."""
    positions = np.flatnonzero(candidate)
    taken: Ints = positions[(np.cumsum(wanted) - 1) % len(positions)]
    return taken


def _repeats(draw: _Uniforms) -> tuple[Ints, Bools]:
    """For each row the one it repeats (itself for most), and whether it does so loosely."""
    row, u = np.arange(BLOCK), draw(BLOCK)
    source = np.where(u < _EXACT + _NEAR, _below(draw(BLOCK), row), row)
    while not np.array_equal(source, source[source]):
        source = source[source]
    return source, (u < _NEAR) & (source != row)


def _texts(
    lexicon: "_Lexicon", draw: _Uniforms, signals: Choices, source: Ints, near: Bools
) -> pa.Array:
    """The headlines of the rows' choices, as an array of strings."""

    def one_of(size: int | Ints) -> Ints:
        # Squared: the first words of a list are common, the last are rare.
        return _below(draw(BLOCK)[source] ** 2, size)

    topic, claim = signals["topic"], signals["claim"]
    figures = (signals["figures"] == 2).astype(np.int64)
    style = signals["case"] * lexicon.count
    loud = np.where(signals["emphasis"] == 1, 2 * lexicon.count, style)
    # A near-duplicate differs in a word or in what follows the headline.
    other = near & (draw(BLOCK) < 0.5)
    modifier = np.where(
        other, _choose(draw(BLOCK), len(lexicon.lean["modifier"]), 0), signals["modifier"]
    )
    suffix = _choose(draw(BLOCK), len(words.SUFFIXES), _ABSENT["suffix"])[source]
    suffix = np.where(near & ~other, 1 + (suffix + 1) % (len(words.SUFFIXES) - 1), suffix)

    def phrase(name: str) -> list[pa.Array]:
        choice = signals[name]
        slot = lexicon.slot[name][choice]
        size = lexicon.size[figures, slot]
        filling = lexicon.first[figures, slot] + _below(draw(BLOCK)[source], size)
        return [
            lexicon.take(lexicon.before[name][choice] + style),
            lexicon.take(filling + style),
            lexicon.take(lexicon.after[name][choice] + style),
        ]

    quote = _choose(draw(BLOCK)[source], 3, 0.85)
    head = lexicon.head_first[topic] + one_of(lexicon.head_count[topic])
    verb = lexicon.claim_first[claim] + one_of(lexicon.claim_count[claim])
    tail = _choose(draw(BLOCK)[source], len(words.TAILS), _ABSENT["tail"])
    text = _join(
        *phrase("opener"),
        *phrase("lead"),
        lexicon.take(lexicon.before["modifier"][modifier] + loud),
        lexicon.take(head + loud),
        *phrase("locator"),
        pa.array([" "]).take(pa.array(np.zeros(BLOCK, np.int64))),
        pa.array(_QUOTES[0]).take(pa.array(quote)),
        lexicon.take(verb + style),
        pa.array(_QUOTES[1]).take(pa.array(quote)),
        lexicon.take(lexicon.part["tail"][tail] + style),
        *phrase("detail"),
        *phrase("attribution"),
        *phrase("ending"),
        lexicon.take(lexicon.part["suffix"][suffix] + style),
    )
    first = pc.utf8_upper(pc.utf8_slice_codeunits(text, 0, 1))
    return _join(first, pc.utf8_slice_codeunits(text, 1))


def _join(*parts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _damage(draw: _Uniforms, text: pa.Array) -> pa.Array:
    """Mojibake, line breaks and odd spaces in a few texts, whatever their class."""
    u, where = draw(BLOCK), draw(BLOCK)
    hit = np.flatnonzero(u < _MOJIBAKE + _BREAK + _SPACES)
    damaged = [
        _damaged(each, u[row], where[row])
        for row, each in zip(hit, text.take(pa.array(hit)).to_pylist(), strict=True)
    ]
    mask = np.zeros(BLOCK, bool)
    mask[hit] = True
    return pc.replace_with_mask(text, pa.array(mask), pa.array(damaged, pa.string()))


def _damaged(text: str, kind: float, where: float) -> str:
    gaps = [position for position, letter in enumerate(text) if letter == " "]
    gap = gaps[int(where * len(gaps))]
    if kind < _BREAK:
        return text[:gap] + "\n" + text[gap + 1 :]
    odd = _ODD_SPACES[int(where * 997) % len(_ODD_SPACES)]
    if kind < _BREAK + _SPACES:
        return text[:gap] + odd + text[gap + 1 :]
    # A hard space or an apostrophe brings every row, of either class, something to break.
    return _mojibake(text[:gap] + _BREAKABLE[int(where * 997) % 2] + text[gap + 1 :])


def _mojibake(text: str) -> str:
    # latin-1 stands in for the five bytes that Windows-1252 leaves undefined.
    return "".join(
        bytes([byte]).decode("latin-1" if byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else "cp1252")
        for byte in text.encode()
    )


class _Lexicon:
    """Every string a headline can hold in one array, and tables of where each lies.

    The array holds each string three times: as it is, in Title Case and in CAPITALS.
    """

    def __init__(self) -> None:
        self._strings: list[str] = [""]
        self.lean: dict[str, Floats] = {}
        self.part: dict[str, Ints] = {}  # name -> position of each choice
        self.before: dict[str, Ints] = {}
        self.slot: dict[str, Ints] = {}  # name -> slot of each choice, 0 for none
        self.after: dict[str, Ints] = {}

        slots = ("", *(name for name in words.SLOTS if not name.endswith("_words")))
        fill: dict[str, tuple[str, ...]] = {"": ("",)} | words.SLOTS
        # Slot s takes its words from first[figures, s], one of size[figures, s].
        pairs = [[fill.get(f"{name}_words", fill[name]) for name in slots]]
        pairs.append([fill[name] for name in slots])
        self.first = np.array([[self._add(each)[0] for each in row] for row in pairs])
        self.size = np.array([[len(each) for each in row] for row in pairs])
        self.numeric = np.array([f"{name}_words" in fill for name in slots])

        self._phrases("lead", words.LEADS, slots, "{} ")
        self._phrases("locator", words.LOCATORS, slots, " {}")
        self._phrases("detail", words.DETAILS, slots, " {}")
        self._phrases("attribution", words.ATTRIBUTIONS, slots, "{}")
        self._phrases("opener", words.OPENERS, slots, "{}: ")
        self._phrases("modifier", words.MODIFIERS, slots, "{} ")
        self._phrases("ending", words.ENDINGS, slots, "{}")
        self.part["tail"] = self._add([f" {each}" if each else "" for each in words.TAILS])
        self.part["suffix"] = self._add([f" {each}" if each else "" for each in words.SUFFIXES])

        topics = words.TOPICS | words.NEW_TOPICS
        self.group = np.array([group for group, _ in topics.values()])
        self.heads = [self._add(heads) for _, heads in topics.values()]
        self.head_first = np.array([heads[0] for heads in self.heads])
        self.head_count = np.array([len(heads) for heads in self.heads])
        claims = [self._add(verbs) for _, verbs in words.CLAIMS.values()]
        self.claim_first = np.array([verbs[0] for verbs in claims])
        self.claim_count = np.array([len(verbs) for verbs in claims])
        self.lean["claim"] = np.array([lean for lean, _ in words.CLAIMS.values()])
        self.lean["interaction"] = np.array(words.INTERACTION, dtype=float).ravel()
        self.lean |= {name: np.array(leans) for name, leans in _SWITCH_LEANS.items()}

        self.count = len(self._strings)
        self.strings = pa.array(
            [*self._strings, *map(_title, self._strings), *map(str.upper, self._strings)]
        )

    def take(self, positions: Ints) -> pa.Array:
        """The strings at these positions of the array."""
        return self.strings.take(pa.array(positions))

    def _add(self, strings: tuple[str, ...] | list[str]) -> Ints:
        start = len(self._strings)
        self._strings += strings
        return np.arange(start, start + len(strings))

    def _phrases(
        self, name: str, table: words.Leaning, slots: tuple[str, ...], frame: str
    ) -> None:
        phrases = [
            (lean, frame.format(phrase) if phrase else "")
            for lean, several in table.items()
            for phrase in several
        ]
        self.lean[name] = np.array([lean for lean, _ in phrases])
        cut = [phrase.replace("}", "{").split("{") for _, phrase in phrases]
        self.before[name] = self._add([each[0] for each in cut])
        self.slot[name] = np.array(
            [slots.index(each[1] if len(each) > 1 else "") for each in cut]
        )
        self.after[name] = self._add([each[2] if len(each) > 1 else "" for each in cut])


_lexicon = cache(_Lexicon)


def _title(text: str) -> str:
    small = {"a", "an", "and", "at", "by", "for", "in", "of", "on", "or", "the", "to", "with"}
    return " ".join(
        word if word in small else word[:1].upper() + word[1:] for word in text.split(" ")
    )
