"""The HTTP listener asked by other people's programs: OpenAI's own client, the OpenAPI validator.

usage: http_clients.py URL TOKEN MODEL DIMENSION
Needs: openai, openapi-spec-validator (tests/run.sh installs them into a folder of their own). Prints a line for each
thing tried; ends with an error at the first that is not as it should be.
"""

import base64
import json
import math
import struct
import sys
import urllib.request

import openai
from openapi_spec_validator import OpenAPIV31SpecValidator

url, token, model, dimension = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
client = openai.OpenAI(base_url=url + "/v1", api_key=token, max_retries=0)


def say(text):
    print("ok:", text, flush=True)


def refused(kind, **request):
    try:
        client.embeddings.create(**request)
    except kind as error:
        return error
    raise AssertionError(f"{request} was not refused")


texts = ["how to adopt a package", "čšž 短い文", "x" * 50]
# Without encoding_format the client asks for base64 and decodes it itself.
plain = client.embeddings.create(model=model, input=texts)
assert [item.index for item in plain.data] == [0, 1, 2] and plain.model == model
assert all(len(item.embedding) == dimension for item in plain.data)
assert all(abs(math.fsum(x * x for x in item.embedding) - 1) < 1e-3 for item in plain.data)
assert plain.usage.prompt_tokens == plain.usage.total_tokens > 9
say(f"openai {openai.__version__}: a list of texts, {plain.usage.total_tokens} tokens")

floats = client.embeddings.create(model=model, input=texts, encoding_format="float")
coded = client.embeddings.create(model=model, input=texts, encoding_format="base64")
for one, other, third in zip(plain.data, floats.data, coded.data):
    decoded = third.embedding
    if isinstance(decoded, str):
        decoded = struct.unpack(f"<{dimension}f", base64.b64decode(decoded))
    assert all(abs(a - b) < 1e-6 and abs(a - c) < 1e-6 for a, b, c in zip(one.embedding, other.embedding, decoded))
say("float and base64 are the same vectors")

single = client.embeddings.create(model=model, input=texts[0], dimensions=dimension)
assert all(abs(a - b) < 1e-5 for a, b in zip(single.data[0].embedding, plain.data[0].embedding))
say("one text, with the dimensions there are")

assert [item.id for item in client.models.list()] == [model]
assert client.models.retrieve(model).id == model
say("models.list, models.retrieve")

assert "256" in refused(openai.BadRequestError, model=model, input="a", dimensions=256).message
assert "token ids" in refused(openai.BadRequestError, model=model, input=[1, 2, 3]).message
assert "token ids" in refused(openai.BadRequestError, model=model, input=[[1, 2], [3]]).message
assert refused(openai.NotFoundError, model="text-embedding-3-small", input="a").code == "model_not_found"
assert refused(openai.BadRequestError, model=model, input="word " * 20000).code == "context_length_exceeded"
assert refused(openai.BadRequestError, model=model, input="").param == "input"
say("other dimensions, token ids, another model, too long and empty texts are refused by the client's own errors")

stranger = openai.OpenAI(base_url=url + "/v1", api_key="wrong" * 8, max_retries=0)
try:
    stranger.embeddings.create(model=model, input="a")
    raise AssertionError("a wrong token was taken")
except openai.AuthenticationError as error:
    assert error.code == "invalid_api_key"
say("a wrong key is an AuthenticationError")

request = urllib.request.Request(url + "/openapi.json", headers={"Authorization": "Bearer " + token})
document = json.load(urllib.request.urlopen(request))
OpenAPIV31SpecValidator(document).validate()
say(f"openapi.json is valid OpenAPI {document['openapi']}, {len(document['paths'])} paths")
