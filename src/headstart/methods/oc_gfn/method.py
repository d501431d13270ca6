"""oc_gfn: pre-training of outcome-conditioned generative flow networks (Pan, Jain, Madan, Bengio, ICLR 2024, arXiv 2310.03419).

- No reward: an exploring flow network (GAFlowNet with random network distillation) proposes an object y, and the OC-GFN learns to reach it,
  P_F(s'|s, y) and log F(s|y), from the proposing trajectory (a success) and from its own attempt (Algorithm 1).
- Outcome teleportation: whether the end is y enters every transition of the loss, not the last alone.
- Data is made while training: `collect` lets both networks build objects, `score` trains on them. Nothing is kept from one update to the next.
- A reward comes only afterwards (`adapt.py`, `conversion.py`). The official code could not be read; what decides is marked in docs/methods/oc_gfn.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.rng import Rng
from headstart.data.environments.store import EnvironmentStore
from headstart.engine.environment_method import EnvironmentMethod
from headstart.engine.method import Batch, Context
from headstart.methods.oc_gfn.config import SETTINGS, OCGFNConfig
from headstart.methods.oc_gfn.losses import augmented_trajectory_balance, detailed_balance, outcome_teleportation
from headstart.methods.oc_gfn.network import ConditionalFlow, Explorer
from headstart.methods.oc_gfn.saved import load_flow, read_config, refuse_other, save_flow
from headstart.methods.oc_gfn.trajectories import Policy, Trajectories, backward_log_probs, masked_log_softmax, roll, uniform_policy

NOVELTY = {32: 0.001, 128: 0.001}
"""eta of grids by cells a side (GAFN's code: 8, 16 and 64 have 0.005)."""
FEW = 0.5
"""A share of successes below this is worth a warning at the end of a run."""


class OCGFN(EnvironmentMethod):
    """A sampler that reaches any requested object."""

    card = SETTINGS.card
    Config = OCGFNConfig
    presets = SETTINGS.presets

    config: OCGFNConfig
    last: Tensor

    def __init__(self, config: OCGFNConfig, store: EnvironmentStore, init: Path | None = None) -> None:
        super().__init__(config, store, init)
        config.check()
        self.flow = ConditionalFlow(self.environment, config.hidden_size, config.num_layers, config.backward == "learned")
        self.explorer = Explorer(self.environment, config.hidden_size, config.num_layers) if config.explore == "gafn" else None
        if self.explorer is not None:
            for name, parameter in self.explorer.named_parameters():
                parameter.lr_scale = config.log_z_rate if name == "log_z" else config.explorer_rate  # type: ignore[attr-defined]
        side = getattr(self.environment, "side", 0)
        self.novelty = NOVELTY.get(side, 0.005) if config.novelty is None else config.novelty
        self.register_buffer("last", torch.ones(()))  # share of successes of the last update
        if init is not None:
            load_flow(self.flow, init)

    @classmethod
    def refuse_init(cls, store: EnvironmentStore, init: Path) -> None:
        refuse_other(read_config(init)["environment"], store.environment, init)

    @classmethod
    def settings_of(cls, init: Path, config: OCGFNConfig) -> dict[str, Any]:
        found = read_config(init)
        return {name: found[name] for name in ("hidden_size", "num_layers", "backward")}

    # --- training -------------------------------------------------------------------------------------------------------------------------------

    def collect(self, batch: Batch, ctx: Context) -> Batch:
        """Builds, for every row, an object y by the exploring policy, and then an own attempt at y.

        Returns:
            the tensors of two `Trajectories`, "success" (which reaches y by construction) and "attempt".
        """
        shape = (self.environment.max_steps, self.environment.n_actions)
        explore = uniform_policy if self.explorer is None else self.explorer.policy
        success = roll(self.environment, explore, ctx.rng.uniform("success", *shape))
        attempt = roll(self.environment, self.towards(success.ends), ctx.rng.uniform("attempt", *shape), self.epsilon(ctx))
        return success.flat("success") | attempt.flat("attempt")

    def epsilon(self, ctx: Context) -> float | Tensor:
        """Share of uniform actions of an attempt at this moment of the run."""
        if self.config.anneal_epsilon and self.config.epsilon:
            return self.config.epsilon * (1 - 2 * ctx.progress(100)).clamp(min=0)
        return self.config.epsilon

    def towards(self, outcomes: Tensor) -> Policy:
        """The policy that builds `outcomes` int64 [batch, state_size]."""
        condition = self.flow.condition(outcomes)

        def policy(states: Tensor, valid: Tensor) -> Tensor:
            return masked_log_softmax(self.flow.head_pf(self.flow.hidden(states, condition)), valid)

        return policy

    def score(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Of the OC-GFN on both trajectories, of the exploring network on the first. Their parameters are apart, so one sum trains both as each alone
        would be."""
        success, attempt = Trajectories.of(batch, "success"), Trajectories.of(batch, "attempt")
        outcomes = success.ends
        reached = (attempt.ends == outcomes).all(-1)
        log_floor = torch.full(reached.shape, self.config.fail_floor, device=reached.device).log()
        log_r = torch.where(reached, 0.0, log_floor)
        if self.config.contrastive:
            both, log_r = Trajectories.stacked(success, attempt), torch.cat([torch.zeros_like(log_r), log_r])
            losses = self.flow_losses(both, torch.cat([outcomes, outcomes]), log_r)
            of_success, of_attempt = losses.chunk(2)
        else:
            of_success = of_attempt = self.flow_losses(attempt, outcomes, log_r)
        if self.config.mask_fail:
            of_attempt = torch.where(reached, of_attempt, 0)
        flow_loss = (of_success.mean() + of_attempt.mean()) / 2 if self.config.contrastive else of_attempt.mean()
        scalars = {"loss": flow_loss, "flow_loss": flow_loss.detach(), "success": reached.float().mean()}
        if self.explorer is not None:
            explored, surprise = self.explorer_losses(success)
            scalars |= {"loss": flow_loss + explored + surprise, "explorer_loss": explored.detach(), "surprise": surprise.detach()}
        return scalars

    def flow_losses(self, trajectories: Trajectories, outcomes: Tensor, log_r: Tensor) -> Tensor:
        """float32 [batch]: the OC-GFN's loss of trajectories that were meant to reach `outcomes`; all states in one forward pass."""
        environment, learned = self.environment, self.flow.head_pb is not None
        states = trajectories.states if learned else trajectories.states[:, :-1]
        hidden = self.flow.hidden(states, self.flow.condition(outcomes)[:, None])
        leaving = hidden[:, : trajectories.actions.shape[1]]
        log_pf = masked_log_softmax(self.flow.head_pf(leaving), environment.valid(trajectories.states[:, :-1]))
        log_pf = log_pf.gather(-1, trajectories.actions[..., None])[..., 0]
        log_f = self.flow.head_logf(leaving).float()[..., 0]
        pb_logits = None if self.flow.head_pb is None else self.flow.head_pb(hidden[:, 1:])
        log_pb = backward_log_probs(environment, pb_logits, trajectories.states[:, 1:], trajectories.done[:, 1:], trajectories.actions)
        objective = outcome_teleportation if self.config.objective == "ot" else detailed_balance
        return objective(log_f, log_pf, log_pb, log_r, trajectories.alive, trajectories.done[:, 1:], self.config.reduction)

    def explorer_losses(self, trajectories: Trajectories) -> tuple[Tensor, Tensor]:
        """(augmented trajectory balance, surprise) of the exploring network, each the mean over the trajectories."""
        assert self.explorer is not None
        explorer, environment, alive = self.explorer, self.environment, trajectories.alive
        hidden = explorer.trunk(environment.encode(trajectories.states))
        log_pf = masked_log_softmax(explorer.head_pf(hidden[:, :-1]), environment.valid(trajectories.states[:, :-1]))
        log_pf = log_pf.gather(-1, trajectories.actions[..., None])[..., 0]
        entered, done = trajectories.states[:, 1:], trajectories.done[:, 1:]
        pb_logits = None if explorer.head_pb is None else explorer.head_pb(hidden[:, 1:])
        log_pb = backward_log_probs(environment, pb_logits, entered, done, trajectories.actions)
        log_f = explorer.head_logf(hidden[:, 1:]).float()[..., 0]
        surprise = explorer.surprise(entered)  # [batch, steps]
        novelty = self.novelty * surprise.detach()
        at_end = novelty[:, -1]  # a trajectory that ended early stands still: its last state is its end
        loss = augmented_trajectory_balance(explorer.log_z, log_pf, log_pb, log_f, novelty, at_end, alive, done)
        return loss.mean(), (torch.where(alive, surprise, 0).sum(1) / alive.sum(1)).mean()

    def observe(self, scalars: Mapping[str, Tensor]) -> None:
        self.last.copy_(scalars["success"])

    # --- looking at it --------------------------------------------------------------------------------------------------------------------------

    def evaluate(self, batch: Batch, ctx: Context) -> dict[str, Tensor]:
        """Of random objects: the share that one attempt reaches, and how far log F(s0|y) is from 0, where it belongs."""
        outcomes = self.targets(batch, ctx.rng)
        attempt = roll(self.environment, self.towards(outcomes), ctx.rng.uniform("attempt", self.environment.max_steps, self.environment.n_actions))
        _, log_f = self.flow(self.environment.start(len(outcomes), outcomes.device), outcomes)
        return {"success": (attempt.ends == outcomes).all(-1).float().mean(), "log_flow_of_start": log_f.abs().mean()}

    def backbone(self) -> nn.Module:
        return self.flow

    def embed(self, batch: Batch) -> Tensor:
        """[batch, hidden]: what the trunk makes of the start and each outcome."""
        rows = batch["trajectory"] if "trajectory" in batch else torch.arange(len(batch["outcome"]), device=batch["outcome"].device)
        outcomes = self.targets(batch, Rng.at(0, 0, rows))
        return self.flow.hidden(self.environment.start(len(outcomes), outcomes.device), self.flow.condition(outcomes))

    @torch.no_grad()
    def show(self, batch: Batch, ctx: Context, own_text: bool = False) -> list[str]:
        """What was asked for, and what came of it."""
        outcomes = self.targets(batch, ctx.rng)
        attempt = roll(self.environment, self.towards(outcomes), ctx.rng.uniform("attempt", self.environment.max_steps, self.environment.n_actions))
        _, log_f = self.flow(self.environment.start(len(outcomes), outcomes.device), outcomes)
        wanted, found = self.environment.to_text(outcomes), self.environment.to_text(attempt.ends)
        return [
            f"asked for {asked}, built {got}{'' if asked == got else ' (missed)'}; log F(start) {flow:.2f}"
            for asked, got, flow in zip(wanted, found, log_f.tolist(), strict=True)
        ]

    def warnings(self) -> list[str]:
        share = float(self.last)
        if share >= FEW:
            return []
        return [f"Of the last attempts only {share:.0%} reached their outcome: a reward would be adapted to on an untrained sampler. Train longer."]

    def export(self, folder: Path) -> None:
        save_flow(self.flow, folder, self.environment, self.config)


METHOD = OCGFN
