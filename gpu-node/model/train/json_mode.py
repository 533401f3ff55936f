"""Answers in JSON, where the system message asks for them: as the AI SDK words it for DeepSeek, shortly, or as schema/chat/deepseek_v32.ts does."""
import json

from tool_loop import any_name

KEYS = "answer text result reply value city word output".split()
DRAFTS = ["http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema"]


def schema_of(rng, key):
    schema = {"type": "object", "properties": {key: {"type": "string"}}, "required": [key]}
    if rng.random() < 0.7:
        schema["additionalProperties"] = False
    return {"$schema": rng.choice(DRAFTS), **schema} if rng.random() < 0.6 else schema


def open_schema(rng):
    schema = {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}}
    return {"$schema": rng.choice(DRAFTS), **schema} if rng.random() < 0.6 else schema


def json_answer(rng, table):
    """One of the questions of `table`, its answer under the one key of the schema, under "answer" where there is none. Returns turns and system."""
    turns = list(rng.choice(list(table.values()))(rng)[0])
    key, schema, way = "answer", None, rng.random()
    if way < 0.15:
        schema = open_schema(rng)
    elif way < 0.7:
        key = rng.choice(KEYS) if rng.random() < 0.5 else any_name(rng)
        schema = schema_of(rng, key)
    if schema is None:
        system = rng.choice(["Return JSON.", "Return JSON.", "Answer in JSON."])
    elif rng.random() < 0.6:
        system = "Return JSON that conforms to the following schema: " + json.dumps(schema, separators=(",", ":"))
    else:
        system = "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n" + json.dumps(schema)
    turns[-1] = {"role": "assistant", "text": json.dumps({key: turns[-1]["text"]})}
    return turns, system
