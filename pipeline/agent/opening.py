"""Which policy a configuration asks for, made ready: a scripted one, a server, a model in here."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.agent import faithful, probes, roles, task_writer, trained
from pipeline.agent.chat import ChatModel
from pipeline.agent.crew import Crews, ScriptedCrews, VisionCrews
from pipeline.agent.families import family_of
from pipeline.agent.oracle import OracleCrews, OraclePolicy
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.writing import SignReader
from pipeline.config import Config
from pipeline.errors import ConfigError

WRITTEN = ("signs",)
"""Kinds of task whose answers are written in the picture, not drawn as tags."""
THREADS = 1
"""For cutting, outlining, encoding and decoding beside the calls in flight. With more than the one
core that a worker has, one that holds the interpreter waits for one that does not."""
SWITCH_S = 0.0005
"""For how long a thread may keep the interpreter from the loop; Python's own 5 ms is a lag."""
NICENESS = 10
"""What this thread leaves to the loop's, which computes little, where both want the core."""


async def open_crews(config: Config) -> Crews:
    """The crews of a resolved configuration; raises `ConfigError`, `ModelError`."""
    if config.policy.kind == "scripted":
        return ScriptedCrews(ScriptedPolicy(temperature=config.policy.temperature))
    if config.policy.kind == "oracle":
        return OracleCrews(config.episode.looks)
    model = await open_model(config)
    family = family_of(model.name, config.policy.family)
    threads = ThreadPoolExecutor(THREADS, "pictures", initializer=_stand_back)
    sys.setswitchinterval(SWITCH_S)
    return VisionCrews(model, family, config, threads)


def reads_writing(config: Config) -> bool:
    """Whether the scripted policy needs the pocket finder and reader; no other run loads them."""
    return config.policy.kind == "scripted" and bool(set(WRITTEN) & set(config.task.kind))


def open_reader(config: Config) -> SignReader | None:
    """What writing is found and read with, where the run needs it; raises `ModelError`."""
    if not reads_writing(config):
        return None
    from pipeline.agent.pocket_reader import build_reader

    return build_reader()


def _stand_back() -> None:
    """Let other threads go before this one, where a thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def prompts_sha256(config: Config) -> str:
    """Digest of the wording that determines the policy's behaviour."""
    if config.policy.kind == "scripted":
        return ScriptedPolicy.prompt_sha256
    if config.policy.kind == "oracle":
        return OraclePolicy.prompt_sha256
    told = [roles.prompts_sha256(config.policy.profile)]
    if (config.policy.asked_as, config.policy.profile) == ("trained", "cof-v2"):
        told = [trained.PROMPTS_SHA256]
    told += [probes.PROMPTS_SHA256] if config.checks.probes else []
    told += [faithful.PROMPTS_SHA256] if config.checks.faithful == "model" else []
    told += [task_writer.PROMPTS_SHA256] if "written" in config.task.kind else []
    return told[0] if len(told) == 1 else hashlib.sha256("".join(told).encode()).hexdigest()


async def resolved(config: Config) -> Config:
    """The configuration with `auto` and an unnamed model told: they decide what is made."""
    policy, endpoint = config.policy, config.endpoint
    if policy.kind == "auto":
        from pipeline.agent.discovery import find_servers

        servers = [server for server in find_servers() if server.models]
        if not servers:
            raise ConfigError(
                "No server answers on the usual local ports.",
                "Start one, or set policy.kind to endpoint and endpoint.urls.",
            )
        endpoint = endpoint.model_copy(update={"urls": (servers[0].url,)})
        policy = policy.model_copy(update={"kind": "endpoint"})
    config = config.model_copy(update={"policy": policy, "endpoint": endpoint})
    if policy.kind in ("endpoint", "local") and policy.model is None:
        if policy.kind == "local":
            raise ConfigError("Policy 'local' has no model.", "Set policy.model to a folder.")
        model = await open_model(config)
        await model.close()
        told = policy.model_copy(update={"model": model.name})
        config = config.model_copy(update={"policy": told})
    return config


async def open_model(config: Config) -> ChatModel:
    if config.policy.kind == "local":
        from pipeline.agent.local import open_local

        assert config.policy.model is not None
        return await open_local(
            config.policy.model, device=config.policy.device, template=config.policy.template
        )
    from pipeline.agent.endpoint import open_endpoint

    return await open_endpoint(config.endpoint, config.policy.model)
