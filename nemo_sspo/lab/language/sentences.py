"""What is asked and what can be answered.

A meaning has 288 sentences: six ways to say it, in eight frames, with six ends.
"""

PEOPLE = (
    "my sister", "my friend", "my neighbour", "a student", "my uncle", "my teacher", "a colleague", "my cousin",
    "my brother", "my boss", "my aunt", "a client",
)  # fmt: skip
SITUATIONS = (
    "is tired", "is bored", "feels lonely", "has a headache", "cannot focus", "feels sad", "is hungry", "is anxious",
)  # fmt: skip
TIMES = ("today", "this week", "every morning", "at night", "after work", "since monday", "again", "all day")
QUESTIONS = ("what now", "any advice", "please help", "what would you do", "what is best", "tell me")

FRAMES = ("you should", "you could", "you might", "you can", "maybe", "please", "perhaps", "just")
ENDS = ("", "today", "now", "soon", "first", "then")
MEANINGS = (
    ("sleep for eight hours", "get eight hours of sleep", "have eight hours of sleep", "take eight hours of sleep",
     "sleep eight full hours", "get a full eight hours of sleep"),
    ("go for a walk in the park", "take a walk in the park", "have a walk through the park", "walk around in the park",
     "go walking in the park", "take a stroll through the park"),
    ("call an old friend on the phone", "ring an old friend", "phone an old friend", "give an old friend a call",
     "talk to an old friend on the phone", "make a phone call to an old friend"),
    ("eat a bowl of hot soup", "have a bowl of hot soup", "cook a bowl of soup", "make some hot soup",
     "get a bowl of warm soup", "eat some warm soup"),
    ("read a good book", "read a few pages of a good book", "pick up a good book and read", "sit down to read a book",
     "spend an hour reading a book", "open a book and read"),
    ("see a doctor", "visit a doctor", "go to the doctor", "make an appointment with a doctor",
     "ask a doctor for advice", "get checked by a doctor"),
    ("write a to do list", "make a to do list", "write down a list of things to do", "put together a to do list",
     "draw up a to do list", "start a to do list"),
    ("listen to some music", "play some music", "put some music on", "turn on some music", "listen to a little music",
     "hear some music"),
    ("clean the kitchen", "clean up the kitchen", "tidy the kitchen", "tidy up the kitchen", "scrub the kitchen clean",
     "give the kitchen a clean"),
    ("drink a glass of water", "have a glass of water", "get a glass of water", "drink some water",
     "drink a big glass of water", "take a drink of water"),
)  # fmt: skip
