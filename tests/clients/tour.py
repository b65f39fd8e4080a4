#!/usr/bin/env python3
"""The official Python packages of openai, anthropic and ollama on a tour of a running server: tour.py http://127.0.0.1:8080

    python3 -m venv build/clients && build/clients/bin/pip install openai anthropic ollama
    build/clients/bin/python tests/clients/tour.py URL
"""

import json
import sys
import urllib.error
import urllib.request

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
    several = client.completions.create(model=model, prompt=["The capital of France is", "The capital of Italy is"], n=2, max_tokens=4, temperature=0)
    step([c.index for c in several.choices] == [0, 1, 2, 3] and "Rome" in several.choices[3].text, "openai several prompts")
    token = client.completions.create(model=model, prompt="The capital of France is", max_tokens=1, temperature=0, logprobs=1).choices[0]
    step(several.choices[0].text.startswith(token.logprobs.tokens[0]), "openai completions logprobs")
    try:
        client.completions.create(model=model, prompt="x", best_of=3)
        step(False, "openai best_of")
    except openai.BadRequestError as e:
        step(e.param == "best_of", "openai best_of")
    step(chat(logit_bias={"9": 100}, max_tokens=2, parallel_tool_calls=False).choices[0].message.content != text, "openai logit_bias")
    step(chat(extra_body={"kv_policy": "none"}).choices[0].message.content == text, "openai kv_policy")
    try:
        chat(extra_body={"kv": "kivi-2"})
        step(False, "openai kv")
    except openai.BadRequestError as e:
        step(e.param == "kv", "openai kv")
    tour_infill(client, model)
    tour_responses(client, model, text)
    tour_embeddings(client, model)
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


def tour_infill(client, model):
    body = {"prompt": "def add(a, b):\n    return ", "suffix": "\n\nprint(add(1, 2))\n"}
    try:
        filled = client.completions.create(model=model, max_tokens=12, temperature=0, **body).choices[0].text
    except openai.BadRequestError as e:
        return step(e.param == "suffix", "openai suffix is refused: the model is not made for it")
    step("a + b" in filled, "openai suffix")
    llama = {"input_prefix": body["prompt"], "input_suffix": body["suffix"], "n_predict": 12, "temperature": 0,
             "input_extra": [{"filename": "sub.py", "text": "def sub(a, b):\n    return a - b\n"}]}
    step("a + b" in post("/infill", llama)["content"], "llama.cpp infill")
    step("a + b" in post("/api/generate", body | {"stream": False, "options": {"temperature": 0, "num_predict": 12}})["response"], "ollama suffix")


def tour_responses(client, model, text):
    ask = {"model": model, "input": QUESTION[0]["content"], "temperature": 0, "max_output_tokens": 24}
    whole = client.responses.create(**ask)
    step(whole.output_text == text and whole.usage.output_tokens > 0, "openai responses")
    with client.responses.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_response()
    step(final.output_text == text, "openai responses stream")
    step("".join(e.delta for e in events if e.type == "response.output_text.delta") == text, "openai responses events")
    step(final.usage.input_tokens_details.cached_tokens > 0, "openai responses cached_tokens")
    cut = client.responses.create(**(ask | {"max_output_tokens": 1}))
    step((cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens"), "openai responses incomplete")
    following = client.responses.create(**(ask | {"input": "And of Italy?", "previous_response_id": whole.id}))
    step("Rome" in following.output_text, "openai responses previous_response_id")
    try:
        client.responses.create(**ask, previous_response_id="resp_unknown")
        step(False, "openai responses unknown id")
    except openai.BadRequestError as e:
        step(e.code == "previous_response_not_found", "openai responses unknown id")

    class Answer(BaseModel):
        capital: str

    parsed = client.responses.parse(**(ask | {"max_output_tokens": 100}), text_format=Answer)
    step(parsed.output_parsed.capital == "Paris", "openai responses text_format")
    tool = {"type": "function", "name": "weather", "description": "The weather of a city", "strict": True,
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}}
    talk = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask |= {"input": talk, "instructions": "Use tools.", "tools": [tool], "max_output_tokens": 100}
    with client.responses.stream(**ask, tool_choice="required") as stream:
        for event in stream:
            pass
        called = stream.get_final_response()
    call = called.output[0]
    step((call.type, call.name) == ("function_call", "weather") and "city" in json.loads(call.arguments), "openai responses function call")
    talk += [call.to_dict(), {"type": "function_call_output", "call_id": call.call_id, "output": "It rains."}]
    told = client.responses.create(**ask)
    step(told.output[0].type in ("message", "function_call") and told.usage.input_tokens > called.usage.input_tokens + 10, "openai responses function output")
    try:
        client.responses.create(model=model, input="word " * 60000)
        step(False, "openai responses context_length_exceeded")
    except openai.BadRequestError as e:
        step(e.code == "context_length_exceeded", "openai responses context_length_exceeded")


def tour_embeddings(client, model):
    texts = ["The cat sleeps on the sofa.", "A kitten is asleep on the couch.", "Interest rates were raised by the central bank."]
    embed = lambda **more: client.embeddings.create(**{"model": model, "input": texts} | more)
    both = embed()  # the client asks for base64
    vectors = [d.embedding for d in both.data]
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    step(abs(dot(vectors[0], vectors[0]) - 1) < 1e-4 and both.usage.prompt_tokens > 20, "openai embeddings")
    step(dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]), "openai embeddings are near when meanings are")
    step(dot(embed(encoding_format="float", input=texts[0]).data[0].embedding, vectors[0]) > 0.9999, "openai embeddings as floats")
    step(len(embed(dimensions=64).data[0].embedding) == 64, "openai embeddings dimensions")
    step(len(embed(input=[[1, 2, 3], [4, 5]]).data) == 2, "openai embeddings of tokens")
    try:
        embed(input="word " * 60000)
        step(False, "openai embeddings context_length_exceeded")
    except openai.BadRequestError as e:
        step(e.code == "context_length_exceeded", "openai embeddings context_length_exceeded")


def post(path, body):
    request = urllib.request.Request(URL + path, json.dumps(body).encode())
    return json.load(urllib.request.urlopen(request, timeout=600))


def tour_anthropic():
    client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0)
    ask = {"model": "any", "max_tokens": 24, "messages": QUESTION, "system": "Be brief.", "extra_body": {"temperature": 0}}
    whole = client.messages.create(**ask)
    step("Paris" in whole.content[0].text and whole.stop_reason in ("end_turn", "max_tokens"), "anthropic messages")
    with client.messages.stream(**ask) as stream:
        text = "".join(stream.text_stream)
    step(text == whole.content[0].text, "anthropic stream")
    count = client.messages.count_tokens(model="any", system="Be brief.", messages=QUESTION).input_tokens
    step(client.messages.create(**ask, thinking={"type": "disabled"}).content[0].text == whole.content[0].text, "anthropic thinking")
    tool = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}}
    used = client.messages.create(**(ask | {"max_tokens": 100}), tools=[tool], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    step([b.type for b in used.content] == ["tool_use"] and used.content[0].input["city"] in ("Paris", "Rome"), "anthropic tools")
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
    many = client.embed(model=model, input=["Hello", "World"])
    step(len(many.embeddings) == 2 and many.prompt_eval_count >= 2, "ollama embed")
    step(len(client.embeddings(model=model, prompt="Hello").embedding) == len(many.embeddings[0]), "ollama embeddings")
    step(client.chat(model=model, messages=QUESTION, options=options, think=False).message.content, "ollama think")


def tour_snug():
    with urllib.request.urlopen(URL + "/ready") as ready:
        step(ready.status == 200, "snug ready")
    said = {"messages": QUESTION, "max_tokens": 24, "temperature": 0}
    post("/v1/chat/completions", said)
    try:
        saved = post("/snug/sessions", {"action": "save", "name": "tour", "messages": QUESTION})
    except urllib.error.HTTPError as e:
        return step(e.code == 501, "snug sessions are refused: the server has no folder for them")
    step(post("/snug/sessions", {"action": "restore", "name": "tour"})["tokens"] == saved["tokens"] > 10, "snug sessions")
    post("/snug/sessions", {"action": "erase", "name": "tour"})


for tour in (tour_openai, tour_anthropic, tour_ollama, tour_snug):
    tour()
print(f"{len(done)} steps: " + ", ".join(done))
