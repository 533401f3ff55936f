"""Trains the embedded model: python3 train.py --data FOLDER (with short.npz, long.npz) --minutes N | --stages STAGE=TOKENS,... [--threads N]
Three stages as in the technical report: dense language modelling, indexer warm-up, sparse training of everything."""
import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from chat import PAD_ID
from checkpoint import load_folder
from model import Config, Model

PROMPT_WEIGHT = 0.1  # a prompt token's share of the loss: the answers matter, the questions teach the language


def batches(path, length, rows, seed):
    """Endless (ids, targets, weights, documents), each [rows, length]; the corpus is walked in random order of windows."""
    data = np.load(path)
    ids, learned = data["ids"].astype(np.int64), data["learned"]
    documents = np.cumsum(ids == 0)
    rng, windows = np.random.default_rng(seed), (len(ids) - 1) // length
    while True:
        order = rng.permutation(windows)
        for at in range(0, windows - rows + 1, rows):
            span = order[at : at + rows, None] * length + np.arange(length)
            weight = np.where(learned[span + 1], 1.0, PROMPT_WEIGHT) * (ids[span + 1] != 0) * (ids[span + 1] != PAD_ID)
            yield tuple(torch.from_numpy(a) for a in (ids[span], ids[span + 1], weight.astype(np.float32), documents[span]))


def lm_loss(model, batch, mode):
    ids, targets, weights, documents = batch
    hidden, index_loss = model.hidden(ids, documents, mode)
    each = F.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets.flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum(), index_loss


def run(model, stage, stream, parameters, budget, rate, checkpoint, final=0.1, warm=100):
    """budget: (what is counted, seconds or tokens; how many)."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.05 if stage != "warmup" else 0.0)
    start, tokens, step, shown = time.time(), 0, 0, 0.0
    while True:
        spent = tokens if budget[0] == "tokens" else time.time() - start
        if spent >= budget[1]:
            return tokens
        done = spent / budget[1]
        scale = min(1, (step + 1) / warm) * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        batch = next(stream)
        loss, index_loss = lm_loss(model, batch, stage)
        total = index_loss if stage == "warmup" else loss + index_loss
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if stage != "warmup":
            model.balance(0.001)
        tokens, step = tokens + batch[0].numel(), step + 1
        if time.time() - shown > 20:
            shown = time.time()
            speed = tokens / (shown - start)
            print(f"{stage} step {step} loss {loss.item():.3f} index {float(index_loss):.3f} tokens {tokens} {speed:.0f}/s", flush=True)
            torch.save({"state": model.state_dict(), "config": model.config.as_dict(), "stage": stage, "tokens": tokens}, checkpoint)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=60)
    length.add_argument("--stages", type=stages, help="tokens of each, as in dense=600000,sparse=300000, so that the same run ends at the same step anywhere")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", type=Path, help="a checkpoint, or an exported folder, to go on from")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate of the first stage")
    parser.add_argument("--sparse-rate", type=float, default=3e-4)
    parser.add_argument("--row", type=int, default=0, help="as corpus.py had it: whole conversations in rows")
    parser.add_argument("--step", type=int, default=4096, help="tokens of a step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    data = Path(options.data)
    parts = {"dense": 0.74, "long": 0.08, "warmup": 0.04, "sparse": 0.14}
    budget = lambda stage: ("tokens", options.stages.get(stage, 0)) if options.stages else ("seconds", parts[stage] * options.minutes * 60)
    model, seen = start_from(options.resume)
    checkpoint = data / "checkpoint.pt"
    indexer = [p for n, p in model.named_parameters() if ".indexer." in n]
    rest = [p for n, p in model.named_parameters() if ".indexer." not in n]
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    short, long, row, step = data / "short.npz", data / "long.npz", options.row, options.step
    rows = lambda path, length, seed: batches(path, length, step // length, seed)
    seen += run(model, "dense", rows(short, row or 256, 1), rest, budget("dense"), options.rate, checkpoint, warm=30 if options.resume else 100)
    seen += run(model, "dense", rows(long, 1024, 2), rest, budget("long"), 4e-4, checkpoint, warm=20)
    run(model, "warmup", rows(long, 1024, 3), indexer, budget("warmup"), 1e-3, checkpoint, warm=5)
    others = [rows(short, row, 5), rows(short, row, 6)] if row else [rows(short, 512, 5)]
    seen += run(model, "sparse", mix(rows(long, 1024, 4), *others), indexer + rest, budget("sparse"), options.sparse_rate, checkpoint, warm=20)
    torch.save({"state": model.state_dict(), "config": model.config.as_dict(), "stage": "done", "tokens": seen}, data / "final.pt")
    print("done", seen, "tokens of language modelling", flush=True)


def stages(text):
    parts = dict(part.split("=") for part in text.split(","))
    if not parts.keys() <= {"dense", "long", "warmup", "sparse"}:
        raise argparse.ArgumentTypeError("stages are dense, long, warmup and sparse")
    return {stage: int(tokens) for stage, tokens in parts.items()}


def start_from(path):
    """The model to train and the tokens it has seen in checkpoints before."""
    if path is None:
        return Model(Config()), 0
    if path.is_dir():
        model = load_folder(path).train()
        for layer in model.model.layers:
            layer.self_attn.strict = False
        return model, 0
    saved = torch.load(path)
    model = Model(Config())
    model.load_state_dict(saved["state"])
    return model, saved["tokens"]


def mix(*streams):
    while True:
        for stream in streams:
            yield next(stream)


if __name__ == "__main__":
    main()
