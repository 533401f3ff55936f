"""Trains the embedded model: python3 train.py --data FOLDER (with short.npz, long.npz) --minutes N [--threads N]
Three stages as in the technical report: dense language modelling, indexer warm-up, sparse training of everything."""
import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

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
            weight = np.where(learned[span + 1], 1.0, PROMPT_WEIGHT) * (ids[span + 1] != 0)
            yield tuple(torch.from_numpy(a) for a in (ids[span], ids[span + 1], weight.astype(np.float32), documents[span]))


def lm_loss(model, batch, mode):
    ids, targets, weights, documents = batch
    hidden, index_loss = model.hidden(ids, documents, mode)
    each = F.cross_entropy(model.lm_head(hidden).flatten(0, 1), targets.flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum(), index_loss


def run(model, stage, stream, parameters, seconds, rate, checkpoint, final=0.1, warm=100):
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.95), weight_decay=0.05 if stage != "warmup" else 0.0)
    start, tokens, step, shown = time.time(), 0, 0, 0.0
    while True:
        done = (time.time() - start) / seconds
        if done >= 1:
            return tokens
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
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", help="a checkpoint to go on from")
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate of the first stage")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(7)
    data, seconds = Path(options.data), options.minutes * 60
    model, checkpoint = Model(Config()), data / "checkpoint.pt"
    seen = 0
    if options.resume:
        saved = torch.load(options.resume)
        model.load_state_dict(saved["state"])
        seen = saved["tokens"]
    indexer = [p for n, p in model.named_parameters() if ".indexer." in n]
    rest = [p for n, p in model.named_parameters() if ".indexer." not in n]
    print(sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    short, long = data / "short.npz", data / "long.npz"
    seen += run(model, "dense", batches(short, 256, 16, 1), rest, 0.74 * seconds, options.rate, checkpoint)
    seen += run(model, "dense", batches(long, 1024, 4, 2), rest, 0.08 * seconds, 4e-4, checkpoint, warm=20)
    run(model, "warmup", batches(long, 1024, 4, 3), indexer, 0.04 * seconds, 1e-3, checkpoint, warm=5)
    mixed = mix(batches(long, 1024, 4, 4), batches(short, 512, 8, 5))
    seen += run(model, "sparse", mixed, indexer + rest, 0.14 * seconds, 3e-4, checkpoint, warm=20)
    torch.save({"state": model.state_dict(), "config": model.config.as_dict(), "stage": "done", "tokens": seen}, data / "final.pt")
    print("done", seen, "tokens of language modelling", flush=True)


def mix(*streams):
    while True:
        for stream in streams:
            yield next(stream)


if __name__ == "__main__":
    main()
