"""Any server that speaks OpenAI's API: `vllm serve`, llama.cpp, SGLang, a hosted service.

The client library makes the calls; retrying is the engine's, in one place for all backends, so the client's own is off.
Seeds are sent with each request; whether they are obeyed is the server's affair (vLLM does, most hosted services do not
promise it). What has been generated is in the request log and never drawn again.

`vllm serve` fills in what a request leaves open from the model's generation_config.json (`top_k: 20`, say). To a server
that says in its list of models that it is vLLM, everything is sent, so that what is drawn from is what the recipe says;
other servers may refuse fields that they do not know.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import os
import re
import time
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from cai.backends import finish_reason, folded, folds, unseen
from cai.engine import LOWEST, Completion, Request, choice_logprob
from cai.errors import BackendError, ContextOverflow, InputError, MissingDependency, PromptRefused
from cai.records import content_hash
from cai.yamlfile import StrictModel

if TYPE_CHECKING:
    import openai

RETRYABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum (context|model length)|too many tokens|prompt is too long"
    r"|`inputs` (tokens \+|must have less than)",
    re.I,
)
"""What vLLM, llama.cpp, SGLang, TGI and hosted services say of a prompt that does not fit."""

NO_SYSTEM = re.compile(r"system (role|message|prompt|turn)|roles must alternate|roles are supported", re.I)
"""What servers say where the model's chat template has no system turn."""

FILTERED = re.compile(r"content[ _-]?(filter|policy|moderation|management)|responsible ?ai|moderation_blocked", re.I)
"""What hosted services say, as code or message, where their filter takes a prompt for harmful; no illness of theirs."""

TOP = 20
"""Log-probabilities of a first token that the API gives at most; choices beyond them count as unseen."""

UNFILTERED = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM would else take from the model's files, switched off. Older versions know no `top_k` 0."""

NO_KEY = "none"


class Config(StrictModel):
    """Options of a server. The key is read from an environment variable and never written anywhere."""

    url: str = Field(description="Base URL, for example http://127.0.0.1:8000/v1.")
    model: str = Field(description="Name of the model on the server.")
    api_key_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the key, if one is needed.")
    context: int = Field(4096, ge=16, description="Tokens of prompt and answer together.")
    seats: int = Field(64, ge=1, description="Requests sent at once.")
    timeout: float = Field(120.0, gt=0, description="Seconds an answer may take before it is asked again.")
    extra: dict[str, Any] = Field(default_factory=dict, description="Further fields of the request body, as they are.")
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="What the server calls the limit of a chat answer's tokens; some take only the latter.",
    )
    identity: str = Field(
        "",
        description="What stands for the server in the model's fingerprint: equal ones share what was generated. By "
        "default its host, port and path; on this machine its path alone, so that it may come back on another port.",
    )


def fingerprint(config: Config) -> str:
    """The model as the server names it, and where; what weights are behind the name cannot be seen from here."""
    return f"{config.model}@{content_hash(config.identity or _place(config.url), config.extra, length=12)}"


def _place(url: str) -> str:
    """Which server a URL means: a port of this machine is whatever was free, any other host and port is a service."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url  # no address at all: asking it will say so
    host = parts.hostname or ""
    try:
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    return f"{'this machine' if here else parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def expected_speed(config: Config) -> float | None:
    """None: what is behind a server cannot be told from here."""
    return None


class Backend:
    """See `cai.engine.Backend`."""

    def __init__(self, config: Config, client: openai.AsyncOpenAI) -> None:
        self.fingerprint = fingerprint(config)
        self.context = config.context
        self.seats = config.seats
        self._config = config
        self._client = client
        self._free = asyncio.Semaphore(config.seats)
        self._unfiltered: dict[str, float] | None = None
        self._asking = asyncio.Lock()

    async def generate(self, request: Request) -> Completion:
        import openai

        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._config.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
            "stop": list(sampling.stop) or None,
        }
        if request.choices:
            body |= {"max_tokens": 1, "temperature": 0.0, "stop": None}
            body |= {"logprobs": True, "top_logprobs": TOP} if not isinstance(request.prompt, str) else {"logprobs": 5}
        if not isinstance(request.prompt, str):
            body[self._config.length_field] = body.pop("max_tokens")
        extra = {**({"top_k": sampling.top_k} if sampling.top_k else {}), **self._config.extra}
        if not isinstance(request.prompt, str) and request.prompt[-1].role == "assistant":
            # vLLM's and SGLang's names for a reply begun for the model; servers that know neither start a new reply.
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        try:
            # Waiting for a seat is not part of an answer's time. The client's own time-out is one a read, and a server
            # that drips a byte now and then would hold the seat for ever.
            async with self._free, asyncio.timeout(self._config.timeout):
                body["extra_body"] = {**await self._left_open(), **extra}
                if isinstance(request.prompt, str):
                    reply: Any = await self._client.completions.create(prompt=request.prompt, **body)
                else:
                    turns: Any = [message.row() for message in request.prompt]
                    reply = await self._client.chat.completions.create(messages=turns, **body)
        except (openai.APITimeoutError, TimeoutError) as error:
            raise self._error(f"no answer within {self._config.timeout:g} s", retryable=True) from error
        except openai.APIStatusError as error:
            if error.status_code in (400, 422) and folds(request.prompt) and NO_SYSTEM.search(str(error.message)):
                # So each is asked twice; were it remembered, what is asked would depend on what came before.
                return await self.generate(replace(request, prompt=folded(request.prompt)))
            raise self._status_error(error) from error
        except openai.APIConnectionError as error:
            raise self._error(f"the connection failed: {error.__cause__ or error}", retryable=True) from error
        except (openai.OpenAIError, json.JSONDecodeError, ValueError) as error:
            raise self._error(f"an answer that cannot be read: {error}", retryable=True) from error
        return self._completion(reply, request.choices)

    async def _left_open(self) -> dict[str, float]:
        """What has to be sent beside the request, so that the server puts nothing of its own in its place.

        Asks for the server's models first, unless `extra` leaves nothing open.
        """
        import openai

        if UNFILTERED.keys() <= self._config.extra.keys():
            return {}
        async with self._asking:
            if self._unfiltered is None:
                try:
                    models = (await self._client.models.list()).data
                    vllm = any(model.id == self._config.model and model.owned_by == "vllm" for model in models)
                except openai.APIStatusError as error:
                    if error.status_code in RETRYABLE_STATUS:
                        told = self._status_error(error)
                        raise self._error(
                            f"its list of models fails: {told.what}",
                            retryable=True,
                            retry_after=told.retry_after,
                            mend=f"of a server that has none, say all of {', '.join(UNFILTERED)} in `extra`",
                        ) from error
                    vllm = False
                except (AttributeError, TypeError, ValueError):  # no such list
                    vllm = False
                self._unfiltered = UNFILTERED if vllm else {}
        return self._unfiltered

    def _completion(self, reply: Any, choices: tuple[str, ...]) -> Completion:
        try:
            choice = reply.choices[0]
            if choices and not getattr(choice, "logprobs", None):
                raise self._error(
                    "the server sends no log-probabilities",
                    retryable=False,
                    mend="judge with a server that does, such as vLLM's",
                )
            text = choice.text if hasattr(choice, "text") else choice.message.content
            usage = getattr(reply, "usage", None)  # not every server counts; what it does not is 0
            details = getattr(usage, "prompt_tokens_details", None)
            return Completion(
                text=_text(text),
                finish_reason=finish_reason(choice.finish_reason, where=self._config.url),
                prompt_tokens=int(getattr(usage, "prompt_tokens", 0) or 0),
                completion_tokens=int(getattr(usage, "completion_tokens", 0) or 0),
                cached_tokens=int(getattr(details, "cached_tokens", 0) or 0),
                model=self.fingerprint,
                choice_logprobs=_choice_logprobs(choice, choices) if choices else (),
            )
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise self._error(f"an answer that is not a completion: {error}", retryable=True) from error

    def _status_error(self, error: openai.APIStatusError) -> BackendError:
        message = " ".join(str(getattr(error, "message", error)).split())
        if error.status_code in (400, 413, 422) and TOO_LONG.search(message):
            return ContextOverflow(self._told(message), where=self.fingerprint)
        if error.status_code in (400, 403, 422) and FILTERED.search(f"{error.code} {message}"):
            return PromptRefused(self._told(f"its filter refuses the prompt: {message}"), where=self._config.url)
        mend = ""
        if error.status_code in (401, 403):
            mend = f"set {self._config.api_key_env} to a key that this server accepts"
        elif error.status_code == 404:
            mend = f"does the server have the model {self._config.model!r}?"
        return self._error(
            f"HTTP {error.status_code}: {message}",
            retryable=error.status_code in RETRYABLE_STATUS,
            retry_after=_seconds(error.response.headers.get("retry-after", "")),
            mend=mend,
        )

    def _error(self, what: str, *, retryable: bool, retry_after: float | None = None, mend: str = "") -> BackendError:
        return BackendError(
            self._told(what), where=self._config.url, mend=mend, retryable=retryable, retry_after=retry_after
        )

    def _told(self, message: str) -> str:
        """What a server said, as it may be written into files: some servers repeat the key that they refuse."""
        key = self._client.api_key
        return (message.replace(key, "***") if key != NO_KEY else message)[:300]

    async def close(self) -> None:
        await self._client.close()


def _seconds(header: str) -> float | None:
    """Of a Retry-After header, which holds seconds or a date."""
    try:
        found = float(header)
    except ValueError:
        try:
            found = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, found) if math.isfinite(found) else None


def _choice_logprobs(choice: Any, choices: tuple[str, ...]) -> tuple[float, ...]:
    """Of each choice among the most probable first tokens; of one that is not among them `unseen`, with its bound.

    To rule it out would make a certainty of a cut list, and to give it the bound would count what nobody saw.

    Raises:
        TypeError, AttributeError: the server sent no log-probabilities.
    """
    if isinstance(getattr(choice.logprobs, "content", None), list):
        told = [(each.token, float(each.logprob)) for each in choice.logprobs.content[0].top_logprobs]
    else:
        told = [(token, float(value)) for token, value in choice.logprobs.top_logprobs[0].items()]
    found = [choice_logprob(value for token, value in told if token.strip() == wanted) for wanted in choices]
    # At most the least that was told, and what all that was told leaves; the latter counts where the list is short.
    rest = 1 - math.fsum(math.exp(value) for _, value in told)
    bound = min(min((value for _, value in told), default=0.0), math.log(max(rest, 1e-6)))
    return tuple(value if value > LOWEST else unseen(bound) for value in found)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"content is {type(value).__name__}, not text")
    return value


def build(config: Config, *, seed: int, expected_tokens: int = 0) -> Backend:
    """Connect to the server.

    Raises:
        MissingDependency: the client library is not installed.
        InputError: the URL is not one, or the key cannot be sent.
    """
    try:
        import openai
    except ImportError as error:
        raise MissingDependency("the openai client is not installed", extra="server") from error
    if not config.url.startswith(("http://", "https://")):
        raise InputError("must begin with http:// or https://", where=f"url {config.url!r}")
    key = os.environ.get(config.api_key_env, "").strip() or NO_KEY
    if not re.fullmatch(r"[!-~]+", key):  # the client's own error would show it
        raise InputError(
            "holds a line break, a blank or a character that is not ASCII",
            where=f"environment variable {config.api_key_env}",
            mend="set it to the key alone",
        )
    client = openai.AsyncOpenAI(
        base_url=config.url,
        api_key=key,
        timeout=config.timeout,
        max_retries=0,
    )
    return Backend(config, client)
