"""Byte-level BPE: training, encoding, and the Hugging Face tokenizer.json. Pre-tokenisation is DeepSeek-V3's with one change:
digits stand alone, so that sums are learnt digit by digit."""
import json
from collections import Counter, defaultdict

import regex

from chat import SPECIAL

PATTERNS = [
    r"\p{N}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
]
COMPILED = [regex.compile(p) for p in PATTERNS]
SPLIT_SPECIAL = regex.compile("(" + "|".join(regex.escape(s) for s in SPECIAL) + ")")


def byte_alphabet():
    """GPT-2's map of the 256 bytes to printable characters."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {b: chr(b) for b in keep}, 0
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + extra)
            extra += 1
    return table


ALPHABET = byte_alphabet()


def pieces(text):
    parts = [text]
    for pattern in COMPILED:
        parts = [p for part in parts for p in split_isolated(pattern, part)]
    return parts


def split_isolated(pattern, text):
    out, at = [], 0
    for match in pattern.finditer(text):
        if match.start() > at:
            out.append(text[at : match.start()])
        if match.end() > match.start():
            out.append(match.group())
        at = match.end()
    if at < len(text):
        out.append(text[at:])
    return out


def to_symbols(piece):
    return tuple(ALPHABET[b] for b in piece.encode("utf-8"))


def merge_word(word, pair):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and word[i] == pair[0] and word[i + 1] == pair[1]:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def train(texts, vocab_size):
    """Merges, most frequent pair first, ties by the pair itself: the same corpus gives the same merges."""
    counts = Counter(p for text in texts for part in SPLIT_SPECIAL.split(text) if part not in SPECIAL for p in pieces(part))
    words = [(to_symbols(p), n) for p, n in sorted(counts.items())]
    pairs, where = Counter(), defaultdict(set)
    for i, (word, n) in enumerate(words):
        for pair in zip(word, word[1:]):
            pairs[pair] += n
            where[pair].add(i)
    merges = []
    while len(merges) + 256 + len(SPECIAL) < vocab_size and pairs:
        best = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for i in list(where[best]):
            word, n = words[i]
            for pair in zip(word, word[1:]):
                pairs[pair] -= n
                where[pair].discard(i)
            word = merge_word(word, best)
            words[i] = (word, n)
            for pair in zip(word, word[1:]):
                pairs[pair] += n
                where[pair].add(i)
        pairs.pop(best, None)
    return merges


class Encoder:
    def __init__(self, merges):
        self.merges = merges
        self.rank = {pair: i for i, pair in enumerate(merges)}
        tokens = SPECIAL + [ALPHABET[b] for b in range(256)] + [a + b for a, b in merges]
        self.ids = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
        self.cache = {}

    def word(self, piece):
        found = self.cache.get(piece)
        if found is None:
            word = to_symbols(piece)
            while len(word) > 1:
                best = min(zip(word, word[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                word = merge_word(word, best)
            found = self.cache[piece] = [self.ids[s] for s in word]
        return found

    def encode(self, text):
        out = []
        for part in SPLIT_SPECIAL.split(text):
            if part in SPECIAL:
                out.append(self.ids[part])
            elif part:
                for piece in pieces(part):
                    out += self.word(piece)
        return out

    def decode(self, ids):
        back = {c: b for b, c in ALPHABET.items()}
        names = {i: t for t, i in self.ids.items()}
        out = b""
        for i in ids:
            token = names[i]
            out += token.encode("utf-8") if token in SPECIAL else bytes(back[c] for c in token)
        return out.decode("utf-8", errors="replace")


def save(encoder, path):
    split = lambda p: {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    added = [{"id": i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": i < 3} for i, s in enumerate(SPECIAL)]
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": encoder.ids, "merges": [f"{a} {b}" for a, b in encoder.merges]}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(p) for p in PATTERNS] + [byte_level]},
             "post_processor": None, "decoder": byte_level, "model": model}
    path.write_text(json.dumps(whole, ensure_ascii=False, indent=0), encoding="utf-8")


def load(path):
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    return Encoder([tuple(m.split(" ")) for m in model["merges"]])
