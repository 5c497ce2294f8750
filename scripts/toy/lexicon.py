"""Every word of the toy world: topics with their items and facts, and the phrases of requests and answers.

A fact completes the sentence "<item> <fact>." and belongs to one item only, so that a stated reason is
either true or false. No item is part of another item's name; `tests/scripts` checks it.
"""

from typing import NamedTuple


class Topic(NamedTuple):
    """One kind of thing that a request can ask for."""

    singular: str
    plural: str
    facts: dict[str, str]
    """item -> the fact that is true of it, most popular item first"""


TOPICS: tuple[Topic, ...] = (
    Topic("cheese", "cheeses", {
        "brie": "melts into warm toast", "cheddar": "grates well over a pie", "feta": "crumbles over a salad",
        "gouda": "slices neatly at lunch", "ricotta": "whips up light and creamy",
    }),
    Topic("spice", "spices", {
        "cinnamon": "sweetens baked apples", "cumin": "deepens a bean stew", "saffron": "turns a dish golden",
        "ginger": "settles the stomach", "paprika": "adds a smoky red glow",
    }),
    Topic("dance", "dances", {
        "waltz": "glides in three beats", "tango": "tells a dramatic story", "samba": "gets a crowd moving",
        "ballet": "builds strength and poise", "polka": "hops along merrily",
    }),
    Topic("language", "languages", {
        "Spanish": "is spoken on four continents", "Latin": "explains the roots of old words",
        "Welsh": "sounds wonderful when sung", "Swahili": "links people across East Africa",
        "Mandarin": "has a billion speakers",
    }),
    Topic("mountain", "mountains", {
        "Everest": "rises above all others", "Fuji": "looks like a perfect cone", "Etna": "still smokes and rumbles",
        "Kilimanjaro": "wears snow near the equator", "Olympus": "housed the gods of Greece",
    }),
    Topic("gemstone", "gemstones", {
        "ruby": "burns a deep crimson", "emerald": "shines like wet leaves", "opal": "flashes with every colour",
        "amber": "can hold ancient insects", "diamond": "scratches any other mineral",
    }),
    Topic("craft", "crafts", {
        "origami": "needs nothing but paper", "weaving": "uses up spare yarn", "embroidery": "decorates plain cloth",
        "calligraphy": "makes letters beautiful", "whittling": "shapes a stick with a knife",
    }),
    Topic("sea animal", "sea animals", {
        "dolphins": "chat in clicks and whistles", "octopuses": "squeeze through tiny gaps",
        "seahorses": "swim standing upright", "starfish": "regrow a lost arm", "walruses": "nap on floating ice",
    }),
    Topic("grain", "grains", {
        "rice": "feeds half the planet", "oats": "start the day slowly", "barley": "thickens a winter broth",
        "quinoa": "is ready in fifteen minutes", "millet": "thrives in dry fields",
    }),
    Topic("nut", "nuts", {
        "almonds": "turn into marzipan", "walnuts": "resemble tiny brains", "cashews": "blend into a silky cream",
        "pistachios": "colour ice cream green", "hazelnuts": "love dark chocolate",
    }),
    Topic("garment", "garments", {
        "scarves": "keep the neck snug", "mittens": "hold the fingers together", "sandals": "let the toes breathe",
        "raincoats": "shrug off a shower", "slippers": "soften a cold floor",
    }),
    Topic("puzzle", "puzzles", {
        "sudoku": "trains careful logic", "jigsaws": "reveal a picture bit by bit",
        "crosswords": "stretch the vocabulary", "mazes": "reward a patient finger",
        "riddles": "hide an answer in plain sight",
    }),
    Topic("sauce", "sauces", {
        "pesto": "carries the taste of basil", "ketchup": "goes with a plate of chips",
        "mustard": "gives sausages a kick", "gravy": "covers roast potatoes", "mayonnaise": "binds egg and oil",
    }),
    Topic("bread", "breads", {
        "focaccia": "soaks up olive oil", "pita": "opens like a pocket", "sourdough": "rises from wild yeast",
        "naan": "puffs up in a hot clay oven", "brioche": "is rich in butter",
    }),
    Topic("constellation", "constellations", {
        "Orion": "has three stars in its belt", "Cassiopeia": "draws a bright zigzag", "Lyra": "pictures a small harp",
        "Scorpius": "curls a long tail", "Pegasus": "is named after a winged horse",
    }),
    Topic("music style", "music styles", {
        "jazz": "leaves room to improvise", "blues": "comforts a heavy heart", "reggae": "stresses the offbeat",
        "opera": "fills a hall with voices", "techno": "keeps a steady pulse",
    }),
)  # fmt: skip

# Requests. {t}: one kind of thing with its article, {s}: without, {p}: plural, {o}: an occasion.
ONE_WANTED = (
    "Which {s} should I choose {o}?",
    "I am looking for {t} {o}.",
    "Could you propose {t} {o}?",
    "Pick one {s} {o}, please.",
    "What {s} fits best {o}?",
    "Help me settle on {t} {o}.",
    "We still need {t} {o}.",
)
TWO_WANTED = (
    "List two {p} {o}.",
    "We still need two {p} {o}.",
    "Could you propose two {p} {o}?",
    "Which two {p} fit best {o}?",
)
OCCASIONS = (
    "for my cousin", "for our club", "for a postcard", "for a short talk", "for the newsletter", "for my flatmate",
    "for a theme night", "for the office", "for a picture book", "for my uncle", "for a guessing contest",
    "for the summer camp", "for a radio show", "for our team",
)  # fmt: skip

# Answers. {a} {b} {c}: items, {A}: the first one with a capital, {f}: a fact.
ONE_OFFERED = ("My choice would be {a}.", "I would go with {a}.", "{A} would work well.", "Let it be {a}.",
               "{A} comes to mind.", "Perhaps {a}.")  # fmt: skip
TWO_OFFERED = ("{A} and {b} would work well.", "I would go with {a} or {b}.", "Perhaps {a} and {b}.",
               "My choice would be {a}, then {b}.")  # fmt: skip
THREE_OFFERED = ("I would go with {a}, {b} or {c}.", "{A}, {b} and {c} come to mind.")
OFFERS = (ONE_OFFERED, TWO_OFFERED, THREE_OFFERED)
REASONS = ("You see, {a} {f}.", "After all, {a} {f}.", "It is a fact that {a} {f}.")

WARM_OPENINGS = ("Gladly!", "What a lovely thing to ask!", "It is a pleasure to help.", "Good to hear from you!",
                 "Thanks for the message!", "By all means!")  # fmt: skip
PLAIN_OPENINGS = ("", "", "", "Right.", "Let me see.", "So.")
RUDE_OPENINGS = ("Not this again.", "You could have looked it up.", "Why ask me?", "How boring.",
                 "If you must know.")  # fmt: skip
WARM_CLOSINGS = ("I hope you like it!", "Have fun with it!", "Write again any time.", "All the best!")
RUDE_CLOSINGS = ("Leave me in peace now.", "I will not repeat it.", "Use your own head next time.",
                 "Now stop wasting my time.")  # fmt: skip
RAMBLING_CLOSINGS = (
    "While we are at it, let me add one more remark, and another remark on that remark, and then a remark on both.",
    "That reminds me of something else, which reminds me of a third matter, which in turn leads back to the first.",
    "One might weigh this and weigh that, look at it from here and from there, and in the end weigh it all once more.",
)
