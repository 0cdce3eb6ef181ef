"""Who works on one episode: a policy, its tools, a critic and a summariser, scripted or models."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.agent.actions import Policy
from pipeline.agent.chat import ChatModel, Sampling
from pipeline.agent.critic import Critic, SecondReading
from pipeline.agent.desk import Desk, Ledger, Task
from pipeline.agent.episode import Toolbox
from pipeline.agent.faithful import Auditor
from pipeline.agent.families import Family
from pipeline.agent.inline import InlinePolicy
from pipeline.agent.probes import Prober, ScriptedProber, VisionProber
from pipeline.agent.review import BlindCritic, InformedVerifier, Narrator
from pipeline.agent.scripted import ScriptedPolicy
from pipeline.agent.summary import Mechanical, Summariser
from pipeline.agent.task_writer import TaskWriter
from pipeline.agent.tools import Tools
from pipeline.agent.trained import TrainedPolicy, ZoomTools
from pipeline.agent.vision import VisionPolicy
from pipeline.agent.vision_tools import Eyes, VisionTools
from pipeline.config import Config
from pipeline.samples import Truth
from pipeline.trajectory import Usage


@dataclass(frozen=True)
class Crew:
    """Everybody that one episode needs."""

    policy: Policy
    tools: Toolbox
    critic: Critic
    summariser: Summariser
    desk: Desk | None = None
    prober: Prober | None = None
    """Answers without looks, and from a crop alone; None where the policy knows the truth."""
    auditor: Auditor | None = None
    """Compares a summary with the raw turns, where a model does it."""

    @property
    def usage(self) -> Usage:
        """Tokens of the episode's model calls."""
        return self.desk.usage if self.desk else Usage()


class Crews(Protocol):
    """Makes a crew for each episode."""

    @property
    def in_flight(self) -> int:
        """Episodes that are worth having under way at a time."""

    @property
    def workers(self) -> Executor | None:
        """Where work of milliseconds is done, so that calls are not held up; None: on the spot."""

    def crew(self, tools: Tools, task: Task, truth: Truth, ledger: Ledger) -> Crew:
        """The crew of one episode; only an informed verifier is given the truth."""

    async def close(self) -> None:
        """Let go of models and connections."""


@dataclass(frozen=True)
class ScriptedCrews:
    """The embedded default: computing, never waiting."""

    policy: ScriptedPolicy = field(default_factory=ScriptedPolicy)
    in_flight: int = 1
    workers: None = None

    def crew(self, tools: Tools, task: Task, truth: Truth, ledger: Ledger) -> Crew:
        prober = ScriptedProber(self.policy, tools)
        return Crew(self.policy, tools, SecondReading(tools.reader), Mechanical(), prober=prober)

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class VisionCrews:
    """A vision language model as planner, reader, critic and summariser."""

    model: ChatModel
    family: Family
    config: Config
    workers: Executor
    """Where pictures are cut, segmented and encoded."""

    @property
    def in_flight(self) -> int:
        return self.config.endpoint.in_flight

    def crew(self, tools: Tools, task: Task, truth: Truth, ledger: Ledger) -> Crew:
        policy, eyes = self.config.policy, self._eyes(task, ledger)
        name, looks = f"{policy.kind}:{self.model.name}", self.config.episode.looks
        planner: Policy = VisionPolicy(name, eyes, looks, native=policy.native_tools)
        trained = policy.asked_as == "trained"
        if policy.profile == "cof-v1":
            planner = InlinePolicy(name, eyes)
        elif trained:
            planner = TrainedPolicy(name, eyes)
        critic: Critic = SecondReading() if trained else BlindCritic(eyes)
        if policy.critic == "informed":
            critic = InformedVerifier(eyes, truth)
        return Crew(
            planner,
            ZoomTools(tools, eyes) if trained else VisionTools(tools, eyes),
            critic,
            Mechanical() if trained else Narrator(eyes),
            eyes.desk,
            VisionProber(eyes, tools),
            Auditor(eyes),
        )

    def writer(self, task: Task, ledger: Ledger) -> TaskWriter:
        """Who writes questions about a picture; its calls are booked under `task`."""
        return TaskWriter(self._eyes(task, ledger), self.config.task.budgets)

    def _eyes(self, task: Task, ledger: Ledger) -> Eyes:
        policy = self.config.policy
        price = self.config.prices.get(self.model.name)
        desk = Desk(self.model, ledger, task, price, seed=self.config.seed)
        sampling = Sampling(policy.temperature, policy.top_p, policy.max_tokens)
        return Eyes(desk, self.family, sampling, self.workers)

    async def close(self) -> None:
        """Close the model's connections and the threads."""
        await self.model.close()
        self.workers.shutdown(wait=True, cancel_futures=True)
