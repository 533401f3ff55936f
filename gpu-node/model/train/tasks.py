"""Generators of the skills. Each returns (turns, tools, answer): a conversation and the exact last answer expected.
`held` chooses instances that training never sees: other operands, other names, other tool names."""
import csv
import re
from pathlib import Path

NAMES = "Anna Ben Clara David Emma Felix Grace Henry Iris Jack Karen Leo Maria Nina Oscar Paula Quinn Rosa Sam Tina Uma Victor Wendy Xavier Yara Zoe".split()
HELD_NAMES = "Albert Bella Conrad Daisy Edgar Fiona Gustav Helen".split()
CITIES = "Paris London Oslo Rome Madrid Berlin Vienna Lisbon Dublin Athens Cairo Tokyo Delhi Lima Quito Boston Sydney Toronto Prague Warsaw".split()
JOBS = "baker teacher doctor farmer painter driver sailor writer lawyer singer builder nurse pilot tailor cook gardener".split()
FOODS = "apples bread cheese soup rice honey fish pasta cakes grapes olives pears".split()
COLOURS = "red blue green yellow black white brown orange purple grey".split()
PETS = "cat dog horse parrot rabbit turtle goat hamster".split()
FACTS = [
    ("{n} lives in {v}.", "Where does {n} live?", CITIES),
    ("{n} works as a {v}.", "What is the job of {n}?", JOBS),
    ("{n} likes {v}.", "What does {n} like?", FOODS),
    ("{n} has a {v}.", "What animal does {n} have?", PETS),
    ("The house of {n} is {v}.", "What colour is the house of {n}?", COLOURS),
]
FILLERS = [
    "The weather was mild that day.", "Many people walked by the river.", "The market opens early in the morning.",
    "A train leaves every hour.", "The old bridge was built of stone.", "Children played in the park.",
    "The shop on the corner sells newspapers.", "In the evening the streets are quiet.", "It rained for a week.",
]
TOOLS = {
    "get_weather": ("Get the weather of a city.", {"city": "string"}),
    "get_time": ("Get the local time of a city.", {"city": "string"}),
    "add": ("Add two numbers.", {"a": "number", "b": "number"}),
    "multiply": ("Multiply two numbers.", {"a": "number", "b": "number"}),
    "search": ("Search the web.", {"query": "string"}),
    "send_mail": ("Send a mail.", {"to": "string"}),
}
HELD_TOOLS = {"weather_now": ("Get the weather of a city.", {"city": "string"}), "sum_of": ("Add two numbers.", {"a": "number", "b": "number"})}
SMALL_TALK = [
    (("Hello!", "Hi", "Hello", "Hi there!", "Good morning!", "Hey"), "Hello! How can I help you?"),
    (("Who are you?", "What are you?", "What is your name?", "Tell me who you are."), "I am Sparrow Mini, a very small language model. I run on your own machine."),
    (("What can you do?", "How can you help me?", "Help"), "I can do small sums, name capitals, explain common words, answer from a passage and call tools."),
    (("Thank you!", "Thanks", "Thank you very much."), "You are welcome!"),
    (("How are you?", "How are you today?"), "I am fine, thank you. How can I help you?"),
    (("Goodbye", "Bye!", "See you"), "Goodbye!"),
]
UNKNOWN = [
    "Write a poem about the sea.", "Who won the match yesterday?", "Explain quantum physics.", "Translate this to French.", "Tell me a joke.",
    "What should I cook tonight?", "Write a program in Python.", "Who is the president?", "What is the meaning of life?", "Sing a song.",
    "What will happen tomorrow?", "Can you draw a picture?", "How do I fix my car?", "Write an essay about history.", "Which phone should I buy?",
]
UNKNOWN_ANSWER = "I am sorry, I do not know that. I am a very small model."


def chat(question, answer):
    return [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]


def is_held(a, b):
    return (a * 31 + b * 17) % 10 == 0


def add_steps(a, b):
    """Digit by digit from the right, the way it is done on paper."""
    steps, carry, place = [], 0, 0
    x, y = str(a)[::-1], str(b)[::-1]
    for place in range(max(len(x), len(y))):
        p, q = int(x[place]) if place < len(x) else 0, int(y[place]) if place < len(y) else 0
        total = p + q + carry
        steps.append(f"{p} + {q}" + (f" + {carry}" if carry else "") + f" = {total}, write {total % 10}" + (f", carry {total // 10}" if total > 9 else ""))
        carry = total // 10
    if carry:
        steps.append(f"write {carry}")
    return "; ".join(steps) + "."


def sub_steps(a, b):
    steps, borrow = [], 0
    x, y = str(a)[::-1], str(b)[::-1]
    for place in range(len(x)):
        p, q = int(x[place]), int(y[place]) if place < len(y) else 0
        low = p - q - borrow
        lend = 1 if low < 0 else 0
        steps.append(f"{p + 10 * lend} - {q}" + (f" - {borrow}" if borrow else "") + f" = {low + 10 * lend}, write {low + 10 * lend}" + (", borrow 1" if lend else ""))
        borrow = lend
    return "; ".join(steps) + "."


def sums(rng, held=False, thinking=None):
    while True:
        a, b = rng.randint(0, rng.choice([9, 99, 999])), rng.randint(0, rng.choice([9, 99, 999]))
        if is_held(a, b) == held:
            break
    minus = rng.random() < 0.4
    if minus and a < b:
        a, b = b, a
    sign, word, result = ("-", "minus", a - b) if minus else ("+", "plus", a + b)
    steps = sub_steps(a, b) if minus else add_steps(a, b)
    ask = rng.choice(["What is {a} {s} {b}?", "{a} {s} {b} = ?", "Calculate {a} {s} {b}.", "How much is {a} {s} {b}?", "What is {a} {w} {b}?"])
    question = ask.format(a=a, b=b, s=sign, w=word)
    final = f"{a} {sign} {b} = {result}"
    if thinking if thinking is not None else rng.random() < 0.5:
        return [{"role": "user", "text": question}, {"role": "assistant", "think": steps, "text": final}], (), final
    answer = f"{steps} So {final}"
    return chat(question, answer), (), answer


def made_up_name(rng):
    """Names nobody has, so that answering means copying from the passage."""
    if rng.random() < 0.4:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7))).capitalize()
    return "".join(rng.choice("b d f g k l m n p r s t v z".split()) + rng.choice("a e i o u".split()) for _ in range(rng.randint(2, 3))).capitalize()


def passage(rng, held=False, facts=None, fillers=None, questions=1):
    names = HELD_NAMES if held else NAMES if rng.random() < 0.3 else [made_up_name(rng) for _ in range(12)]
    wanted, seen = facts or rng.randint(2, 7), {}
    while len(seen) < min(wanted, 5 * len(names) - 5):
        name, kind = rng.choice(names), rng.randrange(len(FACTS))
        seen.setdefault((name, kind), rng.choice(FACTS[kind][2]))
    lines = [FACTS[k][0].format(n=n, v=v) for (n, k), v in seen.items()]
    lines += [rng.choice(FILLERS) for _ in range(rng.randint(0, 3) if fillers is None else fillers)]
    rng.shuffle(lines)
    text, turns = " ".join(lines), []
    for (name, kind), value in rng.sample(list(seen.items()), min(questions, len(seen))):
        ask, answer = FACTS[kind][1].format(n=name), FACTS[kind][0].format(n=name, v=value)
        first = [f"{text}\n\n{ask}", f"Read this: {text}\n\nQuestion: {ask}", f"{ask} Answer from this passage: {text}"]
        turns += chat(ask if turns else rng.choice(first), answer)
    return turns, (), answer


def tool_json(name, spec):
    description, keys = spec
    properties = {k: {"type": t} for k, t in keys.items()}
    return {"name": name, "description": description, "parameters": {"type": "object", "properties": properties, "required": list(keys)}}


def made_up_tools(rng):
    """The same tools under names that nobody knows, so that calling means copying from the declaration."""
    part = lambda: made_up_name(rng).lower()
    return {f"{part()}_{part()}" if rng.random() < 0.5 else part(): spec for spec in TOOLS.values()}


def tool_call(rng, held=False, with_result=None):
    pool = dict(TOOLS) if rng.random() < 0.35 else made_up_tools(rng)
    name = rng.choice(list(pool)[:4])
    if held:
        name = rng.choice(list(HELD_TOOLS))
        pool = {**HELD_TOOLS, "search": TOOLS["search"], "send_mail": TOOLS["send_mail"]}
    kinds = list(pool)
    others = [k for k in kinds if k != name and pool[k][0] != pool[name][0]]
    chosen = [name] + rng.sample(others, rng.randint(0, min(2, len(others))))
    rng.shuffle(chosen)
    tools = [tool_json(k, pool[k]) for k in chosen]
    description = pool[name][0]
    if "city" in pool[name][1]:
        city = rng.choice(CITIES) if held or rng.random() < 0.6 else made_up_name(rng)
        arguments = {"city": city}
        if "weather" in description:
            question = rng.choice([f"What is the weather in {city}?", f"How is the weather in {city} today?", f"Weather in {city}?"])
            value = f"{rng.randint(-5, 35)} degrees, {rng.choice(['sunny', 'rain', 'snow', 'cloudy', 'windy'])}"
            final = f"The weather in {city}: {value}."
        else:
            question = rng.choice([f"What time is it in {city}?", f"Tell me the time in {city}."])
            value = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
            final = f"It is {value} in {city}."
    else:
        a, b = rng.randint(0, 9999), rng.randint(0, 9999)
        arguments = {"a": a, "b": b}
        sign = "+" if description.startswith("Add") else "*"
        question = rng.choice([f"Use the tool: {a} {sign} {b}", f"Compute {a} {sign} {b} with the tool."])
        value = str(a + b if sign == "+" else a * b)
        final = f"{a} {sign} {b} = {value}"
    turns = [{"role": "user", "text": question}, {"role": "assistant", "text": "", "call": (name, arguments)}]
    if with_result if with_result is not None else rng.random() < 0.5:
        return turns + [{"role": "tool", "text": value}, {"role": "assistant", "text": final}], tools, final
    return turns, tools, (name, arguments)


def copy(rng, held=False):
    words = [made_up_name(rng) for _ in range(20)] + NAMES + CITIES + JOBS + FOODS + COLOURS + PETS + (HELD_NAMES if held else [])
    text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 9)))
    return chat(rng.choice(["Repeat: ", "Repeat this: ", "Say: ", "Copy this text: "]) + text, text), (), text


def small_talk(rng, held=False):
    asks, answer = rng.choice(SMALL_TALK)
    return chat(rng.choice(asks), answer), (), answer


def unknown(rng, held=False):
    return chat(rng.choice(UNKNOWN), UNKNOWN_ANSWER), (), UNKNOWN_ANSWER


def load_countries(folder):
    with open(Path(folder) / "countries.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keep = [r for r in rows if r["Capital"] and len(r["Name"]) < 24 and (r["Name"] + r["Capital"]).isascii()]
    return [(r["Name"], r["Capital"], r["Continent"]) for r in keep]


def capitals(countries):
    def task(rng, held=False):
        name, capital, continent = rng.choice(countries)
        kind = rng.random()
        if kind < 0.6:
            ask = rng.choice(["What is the capital of {}?", "Which city is the capital of {}?", "Capital of {}?", "Tell me the capital of {}."])
            question, answer = ask.format(name), f"The capital of {name} is {capital}."
        elif kind < 0.8:
            question, answer = f"{capital} is the capital of which country?", f"{capital} is the capital of {name}."
        else:
            question, answer = f"On which continent is {name}?", f"{name} is in {continent}."
        return chat(question, answer), (), answer
    return task


def load_words(folder, count=300):
    """Most frequent one-word nouns of WordNet with a short first gloss, and the most frequent antonym pairs."""
    folder = Path(folder)
    glosses, antonyms = {}, []
    for line in (folder / "data.noun").read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            glosses[line[:8]] = line.split("| ", 1)[1].split(";")[0].strip()
    frequency = {}
    for line in (folder / "index.sense").read_text().splitlines():
        key, offset, sense, tagged = line.split()
        word, kind = key.split("%")
        if kind[0] == "1" and sense == "1" and re.fullmatch("[a-z]{3,10}", word):
            frequency[word] = (int(tagged), offset)
    best = sorted(frequency, key=lambda w: (-frequency[w][0], w))
    words = [(w, glosses[frequency[w][1]]) for w in best if 12 < len(glosses[frequency[w][1]]) < 60 and "(" not in glosses[frequency[w][1]]]
    return words[:count]


def definitions(words):
    def task(rng, held=False):
        word, gloss = rng.choice(words)
        ask = rng.choice(["What is the meaning of {}?", "Define {}.", "What does {} mean?", "Define the word {}.", "What is {a}?"])
        article = ("an " if word[0] in "aeiou" else "a ") + word
        answer = f"{word.capitalize()}: {gloss}."
        return chat(ask.format(word, a=article), answer), (), answer
    return task


OPPOSITES = "big small,hot cold,up down,good bad,old new,fast slow,high low,long short,open closed,light dark,early late,rich poor,strong weak,wet dry,full empty,hard soft,happy sad,near far,left right,young old,true false,clean dirty,loud quiet,wide narrow,heavy light,deep shallow,thick thin,first last,black white,day night"


def opposites(rng, held=False):
    left, right = rng.choice([p.split() for p in OPPOSITES.split(",")])
    if left not in ("old", "light") and rng.random() < 0.5:
        left, right = (right, left) if right not in ("old", "light") else (left, right)
    answer = f"The opposite of {left} is {right}."
    return chat(rng.choice([f"What is the opposite of {left}?", f"Opposite of {left}?"]), answer), (), answer
