"""What goes into a policy-gradient step and what comes out."""

from dataclasses import dataclass

from seif_nemo.types.rollouts import LogProbs, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class TrainSample:
    """One response to learn from. The per-token arrays have one entry per response token."""

    prompt_ids: TokenIds
    response_ids: TokenIds
    old_logprobs: LogProbs  # under the weights the step starts from, by the training forward pass
    reference_logprobs: LogProbs
    advantages: LogProbs
    group: int  # samples of one group share a mini-batch
    weights: LogProbs | None = None  # of the tokens in the policy loss; None: all 1


@dataclass(frozen=True, slots=True, eq=False)
class ValueSample:
    """One response for the critic to learn from. The per-token arrays have one entry per response token."""

    prompt_ids: TokenIds
    response_ids: TokenIds
    values: LogProbs  # by the weights the step starts from, of the state before each token
    returns: LogProbs  # what they should have been
    group: int  # samples of one group share a mini-batch


@dataclass(frozen=True, slots=True)
class CriticStats:
    """Means over the mini-batches of one train step that were applied, the same on every rank."""

    loss: float
    clip_fraction: float  # share of tokens whose gradient the value clip removed
    explained_variance: float  # 1 - var(returns - values) / var(returns) before the step; NaN where returns are equal
    value_mean: float  # before the step, over tokens
    return_mean: float
    grad_norm: float  # mean over applied mini-batches, before clipping; NaN if all were skipped
    update_norm: float  # mean over applied mini-batches: how far the weights moved
    learning_rate: float
    num_tokens: int  # response tokens of one epoch
    num_updates: int
    num_skipped_updates: int  # non-finite gradients
    router_aux_loss: float = 0.0  # load balance of the experts, as of TrainStats


@dataclass(frozen=True, slots=True)
class TrainStats:
    """Means over the mini-batches of one train step that were applied, the same on every rank."""

    loss: float
    policy_loss: float
    kl: float  # estimate to the reference
    entropy: float  # of the policy, in nats per token
    clip_fraction: float  # share of tokens whose gradient the ratio clip removed
    ratio_max: float
    grad_norm: float  # mean over applied mini-batches, before clipping; NaN if all were skipped
    update_norm: float  # mean over applied mini-batches: how far the weights moved
    learning_rate: float
    num_samples: int
    num_tokens: int  # response tokens, those of skipped mini-batches included
    num_updates: int
    num_skipped_updates: int  # non-finite gradients
    num_micro_batches: int  # per replica
    packing_fill: float  # mean over mini-batches: tokens per position, were every micro-batch as large as the largest
    packing_imbalance: float  # largest over mini-batches: how far the dearest replica is above the mean cost, a share
    router_aux_loss: float = 0.0  # load balance of the experts, mean over layers: 1 if even; 0 where it is not in use
