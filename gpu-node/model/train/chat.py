"""Conversations as text, the way schema/chat/deepseek_v32.ts renders them, split into parts to learn from and parts to read."""
import json
from pathlib import Path

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK, DSML = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜"
SPECIAL = [BOS, EOS, PAD, USER, ASSISTANT, THINK, END_THINK, DSML]
PAD_ID = SPECIAL.index(PAD)
PREAMBLE = (Path(__file__).parent / "tool_preamble.txt").read_text(encoding="utf-8")


def tool_section(tools):
    """tools: function objects {name, description, parameters}; one JSON a line, Python separators."""
    return PREAMBLE.replace("{functions}", "\n".join(json.dumps(t, ensure_ascii=False) for t in tools))


def call_block(name, arguments):
    lines = [f"<{DSML}function_calls>", f'<{DSML}invoke name="{name}">']
    for key, value in arguments.items():
        text = value if isinstance(value, str) else json.dumps(value)
        kind = "true" if isinstance(value, str) else "false"
        lines.append(f'<{DSML}parameter name="{key}" string="{kind}">{text}</{DSML}parameter>')
    return "\n\n" + "\n".join(lines + [f"</{DSML}invoke>", f"</{DSML}function_calls>"])


def render(turns, tools=(), system=""):
    """turns: dicts with role user {text}, assistant {text, think?, call?: (name, arguments)}, tool {text}.
    Returns [(text, learned)]: learned parts are what the model must write."""
    parts = [(BOS + system + ("\n\n" + tool_section(tools) if tools else ""), False)]
    for i, turn in enumerate(turns):
        tag = THINK if i + 1 < len(turns) and "think" in turns[i + 1] else END_THINK
        if turn["role"] == "user":
            parts.append((USER + turn["text"] + ASSISTANT + tag, False))
        elif turn["role"] == "tool":
            result = f"\n\n<function_results>\n<result>{turn['text']}</result>\n</function_results>\n\n"
            parts.append((result + tag, False))
        else:
            think = turn["think"] + END_THINK if "think" in turn else ""
            call = call_block(*turn["call"]) if "call" in turn else ""
            parts.append((think + turn["text"] + call + EOS, True))
    return parts
