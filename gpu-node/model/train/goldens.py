"""Goldens of the exported model for the engine's tests: python3 goldens.py --data FOLDER --out FOLDER -> logits.json, tokenizer.json.
Next-token logits of PyTorch (BF16 weights, float32 arithmetic) and token ids of the training encoder."""
import argparse
import json
import random
from pathlib import Path

import torch

import bpe
import tasks
from chat import render
from checkpoint import load_folder, logits
from corpus import MODEL, skills

TOP = 20
TEXTS = [
    "", " ", "Hello, world!", "What is 12 + 345?", "naïve café über straße", "日本語のテキスト、カタカナ", "Привет, мир", "🐦 sparrow 👩‍👩‍👧", "a\r\n\r\nb\t\tc   d ",
    "x = {'a': [1, 2.5, -3e10]}; // ok?", "<｜User｜>Hi<｜Assistant｜></think>", "<｜DSML｜invoke name=\"f\">", "０１２ ¼ ٣", "\u0000\u0001\u007f\u00a0\u200b\ufeff", "don't I'LL", "e\u0301 \U0001d54f",
]


def fuzz(rng):
    pools = ["abcXYZ", "0123456789", " \n\r\t", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "éßøñ", "日本語かカ", "🐦👍", "мир", "\u00a0\u2003\u0301\u200d"]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 60)))


def prompts(table):
    rng = random.Random(11)
    picks = {
        "sum": tasks.sums(rng, held=True, thinking=True), "capital": table["capitals"](rng), "tool": tasks.tool_call(rng, with_result=True),
        "passage_short": tasks.passage(rng), "passage_over_topk": tasks.passage(rng, facts=25, fillers=20), "passage_long": tasks.passage(rng, facts=50, fillers=60),
    }
    for name, (turns, tools, _) in picks.items():
        yield name, "".join(text for text, _ in render(turns, tools)[:-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    encoder, model, cases = bpe.load(MODEL / "tokenizer.json"), load_folder(MODEL), []
    for name, text in prompts(skills(options.data)):
        tokens = encoder.encode(text)
        every = logits(model, tokens)
        # The last position, and earlier ones spread over the prompt.
        places = sorted({len(tokens) - 1, len(tokens) // 2, len(tokens) // 4, 3 * len(tokens) // 4})
        rows = []
        for at in places:
            top = every[at].topk(TOP)
            rows.append({"position": at, "ids": top.indices.tolist(), "logits": [round(v, 5) for v in top.values.tolist()]})
        cases.append({"name": name, "tokens": tokens, "rows": rows})
    rng = random.Random(12)
    texts = TEXTS + [fuzz(rng) for _ in range(200)]
    options.out.mkdir(parents=True, exist_ok=True)
    write = lambda name, value: (options.out / name).write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n")
    write("logits.json", cases)
    write("tokenizer.json", [{"text": text, "ids": encoder.encode(text)} for text in texts])


if __name__ == "__main__":
    main()
