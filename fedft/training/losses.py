"""One loss per task, per example first: a mean over the batch's tokens would couple the examples of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fedft.data.formats import Batch

IGNORED = -100


def per_example_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross entropy of each row by itself, (n,) float32, in nats.

    Guarantee: row i's loss depends on row i alone. Hugging Face's ``outputs.loss`` does not have this property: it
    divides by the batch's number of tokens, and adding one record then moves the clipped sum by more than the clip
    norm.

    Parameters
    ----------
    logits
        (n, K) for classification, (n, t, V) for instruction tuning.
    batch
        labels (n,) or (n, t) with -100 where there is no target.
    """
    if logits.dim() == 2:
        return F.cross_entropy(logits.float(), batch.labels, reduction="none")
    token_losses, is_target = token_cross_entropy(logits, batch.labels)
    return token_losses.sum(dim=1) / is_target.sum(dim=1).clamp(min=1)


def token_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Next-token losses (n, t-1) in nats, 0 where there is no target, and the mask of targets (n, t-1)."""
    targets = labels[:, 1:]
    losses = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), targets, reduction="none", ignore_index=IGNORED)
    return losses, targets != IGNORED


def sampled_log_likelihood_loss(logits: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
    """Minus log-likelihood (n,) of targets drawn from the model itself: its squared gradient is the Fisher information.

    With the data's own labels it would be the empirical Fisher, which has no curvature guarantee
    (Kunstner et al. 2019, section 3). Tokens of an answer are drawn position by position, the context being the data's.
    """
    if logits.dim() == 2:
        drawn = torch.multinomial(logits.detach().float().softmax(-1), 1, generator=generator).squeeze(1)
        return F.cross_entropy(logits.float(), drawn, reduction="none")
    is_target = batch.labels[:, 1:] != IGNORED
    probabilities = logits[:, :-1].detach().float().softmax(-1)
    drawn = torch.multinomial(probabilities.flatten(0, 1), 1, generator=generator).view(is_target.shape)
    losses = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), drawn, reduction="none")
    return (losses * is_target).sum(dim=1)
