"""Held-out questions as JSON lines {skill, prompt, answer}: python3 heldout.py --data FOLDER > heldout.jsonl
Sums with operand pairs, passages with names, and tools with names that training never saw; facts are asked in full."""
import argparse
import json
import random

import corpus
import tasks
from chat import call_block, render


def cases(table, count):
    rng = random.Random(99)
    for skill, make in {
        "sum, visible reasoning": lambda: tasks.sums(rng, held=True, thinking=False),
        "sum, thinking": lambda: tasks.sums(rng, held=True, thinking=True),
        "passage, new names": lambda: tasks.passage(rng, held=True),
        "passage, made-up names": lambda: tasks.passage(random.Random(rng.random()), facts=6),
        "long passage (about 600 tokens)": lambda: tasks.passage(rng, facts=25, fillers=25),
        "capital or continent": lambda: table["capitals"](rng),
        "definition": lambda: table["definitions"](rng),
        "opposite": lambda: tasks.opposites(rng),
        "copy": lambda: tasks.copy(rng, held=True),
        "tool call": lambda: tasks.tool_call(rng, with_result=False),
        "tool call, new tool": lambda: tasks.tool_call(rng, held=True, with_result=False),
        "tool result to sentence": lambda: tasks.tool_call(rng, with_result=True),
        "small talk": lambda: tasks.small_talk(rng),
    }.items():
        for _ in range(count):
            turns, tools, answer = make()
            parts = render(turns, tools)
            text = answer if isinstance(answer, str) else call_block(*answer)
            yield {"skill": skill, "prompt": "".join(t for t, _ in parts[:-1]), "answer": text}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    for case in cases(corpus.skills(options.data), options.count):
        print(json.dumps(case, ensure_ascii=False))


if __name__ == "__main__":
    main()
