"""What does the toolbox ask about words and rules? Templates of strings, logic and look-ups, with their answers."""

from __future__ import annotations

from itertools import pairwise

from workers.benchmarks.toolbox.drawing import Draw, Template
from workers.benchmarks.toolbox.facts import CAPITALS, ELEMENTS, KINDS, NAMES, OPPOSITES, ORDINALS, SPELLING, WORDS
from workers.benchmarks.toolbox.reading import show

# strings


def _mention(draw: Draw, word: str) -> str:
    return draw.one([f"'{word}'", f"the word {word}"])


def _reverse(draw: Draw) -> tuple[str, str]:
    word = draw.one(WORDS)
    text = draw.one(["Spell {} backwards.", "Write {} in reverse.", "Reverse {}."])
    return text.format(_mention(draw, word)), word[::-1]


def _count_letter(draw: Draw) -> tuple[str, str]:
    word = draw.one(WORDS)
    letter = draw.one(word)
    text = draw.one(["How many times does the letter {} occur in {}?", "Count the letter {} in {}."])
    return text.format(letter, _mention(draw, word)), str(word.count(letter))


def _nth_letter(draw: Draw) -> tuple[str, str]:
    word = draw.one(WORDS)
    n = draw.between(1, min(len(word), len(ORDINALS)))
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(n, "th")
    ordinal = draw.one([f"{n}{suffix}", ORDINALS[n - 1]])
    return f"{draw.one(['What is', 'Give', 'Name'])} the {ordinal} letter of {_mention(draw, word)}.", word[n - 1]


def _sort(draw: Draw) -> tuple[str, str]:
    words = draw.some(WORDS, draw.between(3, 8))
    text = draw.one(["Put these words in alphabetical order: {}.", "Sort the list alphabetically: {}."])
    return text.format(", ".join(words)), ", ".join(sorted(words))


def _longest(draw: Draw) -> tuple[str, str]:
    words = draw.some(WORDS, draw.between(3, 6))
    longest = max(words, key=len)
    if sum(len(word) == len(longest) for word in words) > 1:
        return _longest(draw)
    return draw.one(["Which is the longest of these words: {}?", "Name the longest word: {}."]).format(
        ", ".join(words)
    ), longest


def _initials(draw: Draw) -> tuple[str, str]:
    words = [word.capitalize() for word in draw.some(WORDS, draw.between(3, 5))]
    name = " ".join(words)
    text = draw.one(["What are the initials of {}?", "Make an acronym of {}."])
    return text.format(draw.one([f"'{name}'", f"the {name}"])), "".join(word[0] for word in words)


STRINGS_TEMPLATES: tuple[Template, ...] = (_reverse, _count_letter, _nth_letter, _sort, _longest, _initials)


# logic


def _syllogism(draw: Draw) -> tuple[str, str]:
    a, b, c = draw.some(KINDS, 3)
    return draw.one(
        [(f"All {a} are {b}. All {b} are {c}. Are all {a} {c}?", "yes"),
         (f"All {a} are {b}. No {b} are {c}. Are any {a} {c}?", "no"),
         (f"All {a} are {b}. Some {b} are {c}. Must some {a} be {c}?", "no"),
         (f"Some {a} are {b}. All {b} are {c}. Must some {a} be {c}?", "yes"),
         (f"No {a} are {b}. All {c} are {a}. Are any {c} {b}?", "no"),
         (f"All {a} are {b}. Is every one of the {b} one of the {a}, for certain?", "no")]
    )  # fmt: skip


def _ordering(draw: Draw) -> tuple[str, str]:
    names = draw.some(NAMES, draw.between(3, 5))
    more, less = draw.one([("taller", "shorter"), ("older", "younger"), ("faster", "slower")])
    facts = [
        f"{a} is {more} than {b}." if draw.between(0, 1) else f"{b} is {less} than {a}." for a, b in pairwise(names)
    ]
    ask, answer = draw.one([(more, names[0]), (less, names[-1])])
    return " ".join(draw.some(facts, len(facts))) + f" Who is the {ask[:-1]}st?", answer


def _implication(draw: Draw) -> tuple[str, str]:
    if_, then = draw.one(
        [("the lamp is on", "the room is bright"), ("the pump is broken", "the cellar is wet"),
         ("the gate is open", "the dog is outside"), ("the oven is hot", "the bread is done"),
         ("the tide is high", "the boat is afloat"), ("the key is lost", "the box is locked")]
    )  # fmt: skip
    name = draw.one(NAMES)
    given, asked, answer = draw.one(
        [(if_, then, "yes"), (then.replace(" is ", " is not "), if_, "no"), (then, if_, "unknown"),
         (if_.replace(" is ", " is not "), then, "unknown")]
    )  # fmt: skip
    rule = draw.one([f"If {if_}, {then}.", f"{name} knows: if {if_}, {then}."])
    fact = draw.one([f"Now {given}.", f"{name} sees that {given}.", f"Today {given}."])
    return f"{rule} {fact} Does it follow that {asked}? Answer yes, no or unknown.", answer


def _boolean(draw: Draw) -> tuple[str, str]:
    a, b, c = (draw.one(["true", "false"]) for _ in range(3))
    p, q, r = a == "true", b == "true", c == "true"
    shape, value = draw.one(
        [(f"{a} and ({b} or {c})", p and (q or r)), (f"not {a} or {b} and {c}", not p or (q and r)),
         (f"not ({a} and {b}) or {c}", not (p and q) or r), (f"{a} or {b} and not {c}", p or (q and not r)),
         (f"({a} or {b}) and not {c}", (p or q) and not r)]
    )  # fmt: skip
    text = draw.one(
        [
            "Is this true or false: {}?",
            "What does {} evaluate to?",
            "Evaluate the logical formula {}.",
            "Truth value of {}?",
        ]
    )
    return text.format(shape), str(value).lower()


def _compare(draw: Draw) -> tuple[str, str]:
    a, b = (draw.between(1, 10 ** draw.between(1, 4)) / 10 ** draw.between(0, 3) for _ in range(2))
    if a == b:
        return _compare(draw)
    return draw.one(
        [(f"Which number is larger, {show(a)} or {show(b)}?", show(max(a, b))),
         (f"Which is smaller: {show(a)} or {show(b)}?", show(min(a, b)))]
    )  # fmt: skip


def _series(draw: Draw) -> tuple[str, str]:
    a, d = draw.between(1, 30), draw.between(2, 9)
    r = draw.between(2, 4)
    terms = draw.one(
        [[a + d * i for i in range(6)], [a + 4 * d - d * i for i in range(6)], [d * r**i for i in range(6)],
         [a + d * i * (i + 1) // 2 for i in range(6)]]
    )  # fmt: skip
    shown = ", ".join(map(str, terms[:5]))
    return draw.one(["What number comes next: {}, ?", "Continue the sequence {}, ..."]).format(shown), str(terms[5])


LOGIC_TEMPLATES: tuple[Template, ...] = (_syllogism, _ordering, _implication, _boolean, _compare, _series)


# look-ups


def _capital(draw: Draw) -> tuple[str, str]:
    country, capital = draw.one(sorted(CAPITALS.items()))
    text = draw.one(
        [
            "What is the capital of {}?",
            "Name the capital city of {}.",
            "Which city is {}'s capital?",
            "Tell me the capital of {}.",
        ]
    )
    return text.format(country), capital


def _country(draw: Draw) -> tuple[str, str]:
    country, capital = draw.one(sorted(CAPITALS.items()))
    text = draw.one(
        [
            "{} is the capital of which country?",
            "Which country is governed from {}?",
            "What country has {} as its capital?",
        ]
    )
    return text.format(capital), country


def _element(draw: Draw) -> tuple[str, str]:
    element, symbol = draw.one(sorted(ELEMENTS.items()))
    return draw.one(
        [(f"What is the chemical symbol of {element}?", symbol), (f"Give the symbol for {element}.", symbol),
         (f"What is the atomic number of {element}?", str([*ELEMENTS].index(element) + 1)),
         (f"Which element has the symbol {symbol}?", element)]
    )  # fmt: skip


def _roman(draw: Draw) -> tuple[str, str]:
    number = draw.between(1, 120)
    left, numeral = number, ""
    for value, sign in (
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ):
        numeral += sign * (left // value)
        left %= value
    return draw.one(
        [(f"Write {number} in Roman numerals.", numeral), (f"What is {number} as a Roman numeral?", numeral),
         (f"Which number is the Roman numeral {numeral}?", str(number))]
    )  # fmt: skip


def _spelling(draw: Draw) -> tuple[str, str]:
    word = draw.one([word for word in WORDS if len(word) <= 6])
    text = draw.one(["Spell {} in the NATO alphabet.", "Give the radio code words for {}."])
    return text.format(_mention(draw, word)), ", ".join(SPELLING[letter] for letter in word)


def _opposite(draw: Draw) -> tuple[str, str]:
    pair = draw.one(sorted(OPPOSITES.items()))
    asked, answer = draw.one([pair, pair[::-1]])
    return draw.one(
        ["What is the opposite of {}?", "Give the antonym of {}.", "Which word means the contrary of {}?"]
    ).format(asked), answer


LOOK_UPS_TEMPLATES: tuple[Template, ...] = (_capital, _country, _element, _roman, _spelling, _opposite)
