"""Held-out conversations as text, for test/bench/held_out.ts: python3 heldout.py > test/bench/held_out.json. Same seed, same file."""
import json
import random

import tasks
from chat import render

SEED = 20261124


def passage(facts=None, fillers=None, held=False):
    return lambda rng: tasks.passage(rng, held, facts, fillers)


# Skill, how to make one, how many. Nothing here needs the word lists that training reads.
CASES = [
    ("passage, 2-7 facts", passage(), 24),
    ("passage, 20 facts and 15 fillers", passage(20, 15), 16),
    ("passage, 40 facts and 40 fillers", passage(40, 40), 12),
    ("passage, 45 facts and 90 fillers", passage(45, 90), 12),
    ("tool call, tools seen in training", lambda rng: tasks.tool_call(rng, with_result=False), 16),
    ("tool result to sentence", lambda rng: tasks.tool_call(rng, with_result=True), 16),
    ("sum or difference, thinking", lambda rng: tasks.sums(rng, held=True, thinking=True), 24),
    ("copy", tasks.copy, 16),
]


def main():
    out = []
    for skill, make, count in CASES:
        rng = random.Random(f"{SEED} {skill}")
        for _ in range(count):
            turns, tools, _ = make(rng)
            parts = [text for text, _ in render(turns, tools)]
            out.append({"skill": skill, "prompt": "".join(parts[:-1]), "reply": parts[-1]})
    print(json.dumps(out, ensure_ascii=False, indent=0))


if __name__ == "__main__":
    main()
