"""Held-out figures of the exported model: python3 evaluate.py --data FOLDER [--model FOLDER] [--count N]. Greedy, whole reply exact.
A reply counts when the most likely token is the expected one at every place, reasoning and end of text included: that is what
greedy decoding would have written, at the cost of one forward pass. Of a tool loop every turn of the assistant counts."""
import argparse
import random
from pathlib import Path

import torch

import bpe
import tasks
from chat import render
from checkpoint import load_folder, logits
from corpus import MODEL, skills
from json_mode import json_answer
from tool_loop import tool_loop

SEED = 20261123


def cases(table):
    """Name -> generator of (turns, tools). Which of them hold out instances is written in MODEL_CARD.md."""
    def passage(facts=None, fillers=None, held=False):
        return lambda rng: tasks.passage(rng, held, facts, fillers)

    def multi_turn(rng):
        first, second = table["capitals"](rng)[0], tasks.sums(rng, held=True, thinking=False)[0]
        return first + second, (), None

    def loop(held, thinking, two):
        return lambda rng: tool_loop(rng, held, thinking, two)

    return {
        "sum or difference, thinking": lambda rng: tasks.sums(rng, held=True, thinking=True),
        "sum or difference, chat": lambda rng: tasks.sums(rng, held=True, thinking=False),
        "passage, 2-7 facts, new passages": passage(),
        "passage, 2-7 facts, held-out names": passage(held=True),
        "passage, 20 facts and 15 fillers": passage(20, 15),
        "passage, 40 facts and 40 fillers": passage(40, 40),
        "passage, 45 facts and 90 fillers": passage(45, 90),
        "tool call, tools seen in training": lambda rng: tasks.tool_call(rng, with_result=False),
        "tool call, held-out tools": lambda rng: tasks.tool_call(rng, held=True, with_result=False),
        "tool result to sentence": lambda rng: tasks.tool_call(rng, with_result=True),
        "tool result to sentence, held-out tools": lambda rng: tasks.tool_call(rng, held=True, with_result=True),
        "loop, one call": loop(False, False, False), "loop, one call, thinking": loop(False, True, False),
        "loop, two calls": loop(False, False, True), "loop, two calls, thinking": loop(False, True, True),
        "loop, one call, held-out names": loop(True, False, False), "loop, one call, thinking, held-out names": loop(True, True, False),
        "loop, two calls, held-out names": loop(True, False, True), "loop, two calls, thinking, held-out names": loop(True, True, True),
        "copy": tasks.copy, "capitals and continents": table["capitals"], "definitions": table["definitions"],
        "answer in JSON": lambda rng: json_answer(rng, {"capitals": table["capitals"], "definitions": table["definitions"]}) + (None,),
        "opposites": tasks.opposites, "small talk": tasks.small_talk, "unknown question": tasks.unknown,
        "second turn: a sum after a capital": multi_turn,
    }


class Captured:
    """Attention mass (mean of heads) inside 128 keys chosen by the indexer, by an oracle, and by recency, per layer."""
    def __init__(self, model):
        self.sums, self.rows = {}, {}
        for i, layer in enumerate(model.model.layers):
            layer.self_attn.watch = lambda scores, index, mask, i=i, k=model.config.index_topk: self.add(i, scores, index, mask, k)

    def add(self, layer, scores, index, mask, topk):
        length = scores.shape[-1]
        if length <= 2 * topk:
            return
        dense = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(-1).mean(1)[0, 2 * topk :]
        chosen = dense.gather(-1, index[0, 2 * topk :].topk(topk, -1).indices).sum(-1)
        oracle = dense.topk(topk, -1).values.sum(-1)
        at = torch.arange(2 * topk, length)[:, None] - torch.arange(topk)
        recent = dense.gather(-1, at).sum(-1)
        now = torch.stack([chosen.sum(), oracle.sum(), recent.sum()])
        self.sums[layer] = self.sums.get(layer, 0) + now
        self.rows[layer] = self.rows.get(layer, 0) + length - 2 * topk

    def report(self):
        for layer in sorted(self.sums):
            indexer, oracle, recent = (self.sums[layer] / self.rows[layer]).tolist()
            print(f"layer {layer}: indexer {indexer:.3f}, oracle {oracle:.3f}, recency {recent:.3f}  ({self.rows[layer]} queries past 256)")


def judged(encoder, model, parts, every):
    """Whether the model writes the last reply (or every one) token for token: (right, tokens before it, what it got wrong first)."""
    ids, spans, wrong = [], [], None
    for text, learned in parts:
        part = encoder.encode(text)
        if learned:
            spans.append((len(ids), len(ids) + len(part)))
        ids += part
    best = logits(model, ids[:-1]).argmax(-1).tolist()
    for start, end in spans if every else spans[-1:]:
        wrong = wrong or next((at for at in range(start, end) if best[at - 1] != ids[at]), None)
    shown = wrong and [encoder.decode(ids[:wrong])[-120:], encoder.decode([best[wrong - 1]]), encoder.decode([ids[wrong]])]
    return wrong is None, spans[-1][0], shown


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--only", default="", help="skills whose name holds this")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong replies of each skill")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder, model = bpe.load(MODEL / "tokenizer.json"), load_folder(options.model)
    captured = Captured(model)
    for name, make in cases(skills(options.data)).items():
        if options.only not in name:
            continue
        rng, right, tokens, shown = random.Random(f"{SEED} {name}"), 0, 0, 0
        count = options.count if "fillers" not in name else (options.count + 3) // 4
        for _ in range(count):
            turns, tools, _ = make(rng)
            parts = render(turns, (), tools) if isinstance(tools, str) else render(turns, tools)  # a text is a system message
            good, before, wrong = judged(encoder, model, parts, "loop" in name)
            right, tokens = right + good, tokens + before
            if wrong and shown < options.show:
                shown += 1
                print("  wrong:", repr(wrong[0]), "then", repr(wrong[1]), "for", repr(wrong[2]))
        print(f"{name}: {right}/{count} = {100 * right / count:.1f}%  (prompt {tokens // count} tokens)", flush=True)
    captured.report()


if __name__ == "__main__":
    main()
