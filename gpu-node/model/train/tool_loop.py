"""Tool loops, with thinking and without: one or two calls one after the other, each after a thought, then the answer made of the results.
The names of tools, their parameters and the cities are mostly made up, so that calling means reading the declaration."""
from functools import cache
from pathlib import Path

import bpe
from tasks import CITIES, TOOLS, made_up_name

HELD_CITIES = "Geneva Munich Milan Seattle Bergen Krakow Lyon Porto".split()
HELD_NAMES = {"weather": "weather_now", "time": "clock_of", "add": "sum_of", "multiply": "product_of", "search": "search", "mail": "send_mail"}
PLAIN_NAMES = dict(zip(["weather", "time", "add", "multiply", "search", "mail"], TOOLS))
VERBS = "get fetch find read check show query tell".split()
NOUNS = {
    "weather": "weather forecast climate sky current_weather city_weather".split(), "time": "time clock hour local_time city_time".split(),
    "add": "add sum plus addition total".split(), "multiply": "multiply product times multiplication".split(),
    "search": "search web page".split(), "mail": "mail email message letter".split(),
}
DESCRIPTIONS = {
    "weather": ["Get the weather of a city.", "Returns the current weather of a city.", "The weather in a place."],
    "time": ["Get the local time of a city.", "Returns the time in a city.", "The time in a place."],
    "add": ["Add two numbers.", "Returns the sum of two numbers."], "multiply": ["Multiply two numbers.", "Returns the product of two numbers."],
    "search": ["Search the web."], "mail": ["Send a mail."],
}
CITY_KEYS, NUMBER_KEYS = ["location", "place", "town"], [["x", "y"], ["left", "right"], ["first", "second"]]


@cache
def pieces():
    """Tokens that are a few letters: names put together from them teach to copy any token, not some names."""
    tokens = bpe.load(Path(__file__).parent.parent / "tokenizer.json").ids
    return [token for token in tokens if token.isascii() and token.isalpha() and 2 <= len(token) <= 6]


def any_name(rng):
    return "".join(rng.choice(pieces()) for _ in range(rng.choice([1, 2, 2, 3]))).lower()


def keys_of(rng, kind, held):
    plain = held or rng.random() < 0.6
    if kind in ("weather", "time"):
        return {"city" if plain else rng.choice(CITY_KEYS): "string"}
    if kind in ("add", "multiply"):
        return dict.fromkeys(["a", "b"] if plain else rng.choice(NUMBER_KEYS), rng.choice(["number", "number", "integer"]))
    return {"query" if kind == "search" else "to": "string"}


def name_of(rng, kind, held, style):
    if held:
        return HELD_NAMES[kind]
    if style < 0.2:
        return PLAIN_NAMES[kind]
    noun, other = rng.choice(NOUNS[kind]), rng.choice(VERBS) if rng.random() < 0.4 else any_name(rng)
    if style < 0.6:
        return rng.choice([noun, f"{other}_{noun}", f"{noun}_{other}", f"{noun}_{other}"])
    part = lambda: any_name(rng) if rng.random() < 0.7 else made_up_name(rng).lower()
    return f"{part()}_{part()}" if rng.random() < 0.5 else part()


def declare(rng, kind, held, style):
    """A function object as clients write it: some close the object, some name the schema, some are strict."""
    keys = keys_of(rng, kind, held)
    properties = {k: {"type": t} for k, t in keys.items()}
    if rng.random() < 0.1:
        for k in properties:
            properties[k]["description"] = f"the {k}"
    parameters = {"type": "object", "properties": properties, "required": list(keys)}
    if rng.random() < 0.2:
        parameters["additionalProperties"] = False
    if rng.random() < 0.06:
        parameters["$schema"] = "http://json-schema.org/draft-07/schema#"
    description = DESCRIPTIONS[kind][0] if held or rng.random() < 0.5 else rng.choice(DESCRIPTIONS[kind])
    tool = {"name": name_of(rng, kind, held, style), "description": description, "parameters": parameters}
    return {**tool, "strict": True} if rng.random() < 0.05 else tool


def city(rng, held):
    if held:
        return rng.choice(HELD_CITIES)
    style = rng.random()
    name = any_name(rng).capitalize() if rng.random() < 0.7 else made_up_name(rng)
    return rng.choice(CITIES) if style < 0.35 else name if style < 0.9 else f"{rng.choice(['New', 'San', 'Port'])} {name}"


def number(rng):
    return rng.randint(0, rng.choice([9, 99, 999, 9999]))


def lookup(rng, kind, held, where=None):
    """One thing to find out: how it is asked for, what it is called, the arguments, what the tool says, what is answered."""
    if kind in ("weather", "time"):
        place = where or city(rng, held)
        what = f"the {kind} in {place}"
        if kind == "weather":
            degrees, sky = rng.randint(-9, 39), rng.choice(["sunny", "rain", "snow", "cloudy", "windy", "fog", "clear", "storm"])
            value = rng.choice([f"{degrees} degrees, {sky}"] * 4 + [f"{sky}, {degrees} degrees", f"{degrees} C", sky, f'{{"degrees": {degrees}, "sky": "{sky}"}}'])
            asks = [f"What is the weather in {place}?", f"How is the weather in {place} today?", f"Weather in {place}?"]
            return {"what": what, "asks": asks, "values": [place], "result": value, "final": f"The weather in {place}: {value}."}
        value = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        return {"what": what, "asks": [f"What time is it in {place}?", f"Tell me the time in {place}."], "values": [place], "result": value, "final": f"It is {value} in {place}."}
    return arithmetic(kind, number(rng), number(rng))


def arithmetic(kind, a, b):
    sign, value = ("+", a + b) if kind == "add" else ("*", a * b)
    what = f"{a} {sign} {b}"
    return {"what": what, "asks": [f"Use the tool: {what}", f"Compute {what} with the tool."], "values": [a, b], "result": str(value), "final": f"{what} = {value}"}


def two_lookups(rng, held):
    """Two things asked for at once; of sums the second may need the first one's result. Returns kinds, question, lookups, answer."""
    if rng.random() < 0.6:
        kinds = [rng.choice(["weather", "time"]), rng.choice(["weather", "time"])]
        first = lookup(rng, kinds[0], held)
        here = first["values"][0] if kinds[0] != kinds[1] and rng.random() < 0.6 else None
        second = lookup(rng, kinds[1], held, here)
        one, two = first["what"], second["what"]
        asks = [f"What is {one} and {two}?", f"Tell me {one} and {two}.", f"First tell me {one}, then {two}."]
        if kinds[0] == kinds[1]:
            asks += [f"What is {one} and in {second['values'][0]}?"] * 2
        return kinds, rng.choice(asks), [first, second], f"{first['final']} {second['final']}"
    kinds = [rng.choice(["add", "multiply"]), rng.choice(["add", "multiply"])]
    first = lookup(rng, kinds[0], held)
    if rng.random() < 0.5:
        by = number(rng)
        second = arithmetic(kinds[1], int(first["result"]), by)
        then = f"add {by} to the result" if kinds[1] == "add" else f"multiply the result by {by}"
        question = rng.choice([f"Compute {first['what']} with the tool, then {then}.", f"Use the tools: {first['what']}, then {then}."])
    else:
        second = lookup(rng, kinds[1], held)
        question = rng.choice([f"Compute {first['what']} and {second['what']} with the tools.", f"Use the tools: {first['what']} and {second['what']}"])
    return kinds, question, [first, second], f"{first['final']} and {second['final']}"


def calls(tools, kinds, lookups, final, thinking):
    """The assistant's and the tool's turns of one question."""
    turns = []
    for i, (kind, look) in enumerate(zip(kinds, lookups)):
        name, keys = tools[kind]["name"], tools[kind]["parameters"]["properties"]
        start = "I" if len(kinds) == 1 else "First I" if i == 0 else "Now I"
        turns.append({"role": "assistant", "text": "", "call": (name, dict(zip(keys, look["values"]))), "think": f"{start} need {look['what']}."})
        turns.append({"role": "tool", "text": look["result"]})
    turns.append({"role": "assistant", "text": final, "think": "That is all I need."})
    return turns if thinking else without_thoughts(turns)


def without_thoughts(turns):
    return [{k: v for k, v in turn.items() if k != "think"} for turn in turns]


def tool_loop(rng, held=False, thinking=None, two=None):
    """One time in ten a second question follows the first; what was thought before it is dropped, as the product does."""
    thinking = rng.random() < 0.7 if thinking is None else thinking
    two = rng.random() < 0.6 if two is None else two
    if two:
        kinds, question, lookups, final = two_lookups(rng, held)
    else:
        kinds = [rng.choice(["weather", "time", "add", "multiply"])]
        lookups = [lookup(rng, kinds[0], held)]
        question, final = rng.choice(lookups[0]["asks"]), lookups[0]["final"]
    others = [k for k in PLAIN_NAMES if k not in kinds]
    chosen = list(dict.fromkeys(kinds)) + rng.sample(others, rng.choice([0, 1, 1, 2]))
    rng.shuffle(chosen)
    style = rng.random()
    tools = {kind: declare(rng, kind, held, style) for kind in chosen}
    if len({tool["name"] for tool in tools.values()}) < len(tools):
        return tool_loop(rng, held, thinking, two)
    turns = [{"role": "user", "text": question}] + calls(tools, kinds, lookups, final, thinking)
    if not held and not two and rng.random() < 0.1:
        look = lookup(rng, kinds[0], held)
        final = look["final"]
        turns = without_thoughts(turns) + [{"role": "user", "text": rng.choice(look["asks"])}] + calls(tools, kinds, [look], final, thinking)
    return turns, list(tools.values()), final
