"""What is there to know? The tables that questions are drawn from and that some programs have on their shelf."""

from __future__ import annotations

#: Capital of each country, the best known first.
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Japan": "Tokyo",
    "Germany": "Berlin",
    "Spain": "Madrid",
    "China": "Beijing",
    "Russia": "Moscow",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Austria": "Vienna",
    "Portugal": "Lisbon",
    "Ireland": "Dublin",
    "Norway": "Oslo",
    "Sweden": "Stockholm",
    "Cuba": "Havana",
    "Poland": "Warsaw",
    "Canada": "Ottawa",
    "Argentina": "Buenos Aires",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Hungary": "Budapest",
    "Turkey": "Ankara",
    "Thailand": "Bangkok",
    "Iran": "Tehran",
    "Finland": "Helsinki",
    "Latvia": "Riga",
    "Estonia": "Tallinn",
    "Slovenia": "Ljubljana",
    "Bulgaria": "Sofia",
    "Georgia": "Tbilisi",
    "Armenia": "Yerevan",
    "Mongolia": "Ulaanbaatar",
    "Nepal": "Kathmandu",
    "Laos": "Vientiane",
    "Fiji": "Suva",
    "Samoa": "Apia",
    "Ghana": "Accra",
    "Senegal": "Dakar",
    "Mali": "Bamako",
    "Chad": "Ndjamena",
    "Uganda": "Kampala",
    "Zambia": "Lusaka",
    "Namibia": "Windhoek",
    "Angola": "Luanda",
    "Oman": "Muscat",
    "Qatar": "Doha",
    "Uruguay": "Montevideo",
    "Paraguay": "Asuncion",
    "Ecuador": "Quito",
    "Honduras": "Tegucigalpa",
}

#: Symbol of each element; its atomic number is its position, from 1.
ELEMENTS = {
    "hydrogen": "H",
    "helium": "He",
    "lithium": "Li",
    "beryllium": "Be",
    "boron": "B",
    "carbon": "C",
    "nitrogen": "N",
    "oxygen": "O",
    "fluorine": "F",
    "neon": "Ne",
    "sodium": "Na",
    "magnesium": "Mg",
    "aluminium": "Al",
    "silicon": "Si",
    "phosphorus": "P",
    "sulfur": "S",
    "chlorine": "Cl",
    "argon": "Ar",
    "potassium": "K",
    "calcium": "Ca",
    "scandium": "Sc",
    "titanium": "Ti",
    "vanadium": "V",
    "chromium": "Cr",
    "manganese": "Mn",
    "iron": "Fe",
    "cobalt": "Co",
    "nickel": "Ni",
    "copper": "Cu",
    "zinc": "Zn",
    "gallium": "Ga",
    "germanium": "Ge",
    "arsenic": "As",
    "selenium": "Se",
    "bromine": "Br",
    "krypton": "Kr",
}

OPPOSITES = {
    "hot": "cold", "big": "small", "early": "late", "open": "closed", "heavy": "light", "strong": "weak",
    "rich": "poor", "young": "old", "full": "empty", "fast": "slow", "brave": "timid", "narrow": "wide",
    "deep": "shallow", "sharp": "blunt", "rough": "smooth", "noisy": "quiet", "bitter": "sweet", "ancient": "modern",
    "generous": "stingy", "humble": "proud", "scarce": "plentiful", "rigid": "flexible", "guilty": "innocent",
    "rural": "urban", "transparent": "opaque", "temporary": "permanent", "dry": "wet", "thick": "thin",
}  # fmt: skip

#: Code words of the spelling alphabet, A to Z.
SPELLING = {
    word[0].lower(): word
    for word in (  # noqa: SIM905
        "Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliett Kilo Lima Mike November Oscar Papa Quebec "
        "Romeo Sierra Tango Uniform Victor Whiskey Xray Yankee Zulu"
    ).split()
}

#: Dimension and size of each unit in its dimension's base unit, by singular name and by abbreviation.
UNITS = {
    name: (dimension, size)
    for dimension, names, size in (
        ("length", ("kilometre", "km"), 1000.0), ("length", ("metre", "m"), 1.0),
        ("length", ("centimetre", "cm"), 0.01), ("length", ("millimetre", "mm"), 0.001),
        ("length", ("mile", "mi"), 1609.344), ("length", ("yard", "yd"), 0.9144),
        ("length", ("foot", "ft"), 0.3048), ("length", ("inch", "in"), 0.0254),
        ("mass", ("kilogram", "kg"), 1000.0), ("mass", ("gram", "g"), 1.0), ("mass", ("milligram", "mg"), 0.001),
        ("mass", ("pound", "lb"), 453.59237), ("mass", ("ounce", "oz"), 28.349523125),
        ("volume", ("litre", "l"), 1.0), ("volume", ("millilitre", "ml"), 0.001),
        ("volume", ("gallon", "gal"), 3.785411784),
        ("time", ("week", "wk"), 604800.0), ("time", ("day", "d"), 86400.0), ("time", ("hour", "h"), 3600.0),
        ("time", ("minute", "min"), 60.0), ("time", ("second", "s"), 1.0),
    )
    for name in names
}  # fmt: skip

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")

WORDS = (  # noqa: SIM905
    "anchor apple arrow autumn bakery basket bottle bridge butter candle carpet castle cherry circle clover "
    "copper corner cottage cousin crystal desert dinner doctor dragon engine fabric falcon feather forest "
    "fossil garden ginger glacier grammar guitar hammer harbour helmet honey island jacket jungle kettle "
    "kitchen ladder lantern lemon letter library marble market meadow mirror monkey morning mountain needle "
    "oyster paper parrot pepper pillow planet pocket puzzle rabbit ribbon river rocket saddle salmon scissors "
    "season shadow signal silver sister spider spring stable station stone summer sunset table temple ticket "
    "tiger timber tomato tunnel turtle umbrella valley velvet village violin wagon walnut whisper willow "
    "window winter wizard yellow fig oak ant bee cup pen map sun ice hat box key"
).split()
NAMES = "Ann Ben Clara David Emma Felix Greta Hugo Ida Jonas Karin Leo Mona Nils Olga Paul".split()  # noqa: SIM905
#: Plurals of made-up kinds, for syllogisms.
KINDS = "bloops razzies lazzies mipples torvins zarks quibs fendles wumps drons glips snarfs".split()  # noqa: SIM905
#: Made-up coins: singular and plural.
COINS = {
    "florin": "florins", "groat": "groats", "ducat": "ducats",
    "talent": "talents", "thaler": "thalers", "crown": "crowns",
}  # fmt: skip
