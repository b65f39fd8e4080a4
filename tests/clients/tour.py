#!/usr/bin/env python3
"""The official Python packages of openai, anthropic and ollama on a tour of a running server: tour.py http://127.0.0.1:8080

    python3 -m venv build/clients && build/clients/bin/pip install openai anthropic ollama
    build/clients/bin/python tests/clients/tour.py URL
"""

import json
import sys

import anthropic
import ollama
import openai
from pydantic import BaseModel

URL = sys.argv[1].rstrip("/")
QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one word."}]
done = []


def step(check, name):
    assert check, name
    done.append(name)


def tour_openai():
    client = openai.OpenAI(base_url=URL + "/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    chat = lambda **more: client.chat.completions.create(**{"model": model, "messages": QUESTION, "max_tokens": 24, "temperature": 0} | more)
    whole = chat()
    text = whole.choices[0].message.content
    step("Paris" in text and whole.usage.completion_tokens > 0, "openai chat")
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    step("".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text, "openai stream")
    step(chunks[-1].usage.total_tokens == whole.usage.total_tokens, "openai stream usage")
    step(len(chat(n=3, temperature=1, seed=1).choices) == 3, "openai n")
    first, second = (chat(temperature=1, seed=5, top_p=0.9).choices[0].message.content for _ in range(2))
    step(first == second, "openai seed")
    step("r" not in chat(stop=["r"]).choices[0].message.content, "openai stop")
    probable = chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
    step(len(probable[0].top_logprobs) == 3 and probable[0].logprob <= 0, "openai logprobs")
    step(chat(max_tokens=1).choices[0].finish_reason == "length", "openai length")
    tools = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]
    step(chat(tools=tools).choices[0].message is not None, "openai tools are taken")

    class City(BaseModel):
        name: str
        inhabitants: int

    parsed = client.chat.completions.parse(model=model, messages=QUESTION, response_format=City, max_tokens=200)
    step(isinstance(parsed.choices[0].message.parsed, City), "openai structured output")
    step(json.loads(chat(response_format={"type": "json_object"}, max_tokens=200).choices[0].message.content) is not None, "openai json_object")
    completion = client.completions.create(model=model, prompt="The capital of France is the city of", max_tokens=6, temperature=0)
    step("Paris" in completion.choices[0].text, "openai completions")
    try:
        chat(messages=[{"role": "user", "content": "word " * 60000}])
        step(False, "openai context_length_exceeded")
    except openai.BadRequestError as e:
        step(e.code == "context_length_exceeded", "openai context_length_exceeded")
    try:
        chat(temperature=-1)
        step(False, "openai invalid value")
    except openai.BadRequestError as e:
        step(e.param == "temperature", "openai invalid value")


def tour_anthropic():
    client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    ask = {"model": "any", "max_tokens": 24, "messages": QUESTION, "system": "Be brief.", "extra_body": {"temperature": 0}}
    whole = client.messages.create(**ask)
    step("Paris" in whole.content[0].text and whole.stop_reason in ("end_turn", "max_tokens"), "anthropic messages")
    with client.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
    step(text == whole.content[0].text, "anthropic stream")
    count = client.messages.count_tokens(model="any", system="Be brief.", messages=QUESTION).input_tokens
    step(count == whole.usage.input_tokens + whole.usage.cache_read_input_tokens, "anthropic count_tokens")
    try:
        client.messages.create(**(ask | {"messages": [{"role": "user", "content": "word " * 60000}]}))
        step(False, "anthropic error")
    except anthropic.BadRequestError as e:
        step(e.body["error"]["type"] == "invalid_request_error", "anthropic error")


def tour_ollama():
    client = ollama.Client(host=URL)
    model = client.list().models[0].model
    options = {"temperature": 0, "num_predict": 24}
    whole = client.chat(model=model, messages=QUESTION, options=options)
    step("Paris" in whole.message.content and whole.done, "ollama chat")
    step("".join(p.message.content for p in client.chat(model=model, messages=QUESTION, options=options, stream=True)) == whole.message.content, "ollama stream")
    step(client.generate(model=model, prompt="Hello", options=options).response, "ollama generate")
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    step("n" in json.loads(client.chat(model=model, messages=QUESTION, format=schema, options={"num_predict": 100}).message.content), "ollama format")
    step(client.show(model).modelinfo, "ollama show")


for tour in (tour_openai, tour_anthropic, tour_ollama):
    tour()
print(f"{len(done)} steps: " + ", ".join(done))
