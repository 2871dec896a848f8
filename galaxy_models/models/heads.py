"""Heads: from a backbone's features to answers."""

import torch
from torch import Tensor, nn

from galaxy_models.errors import ConfigError
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task


class Head(nn.Module):
    """Dropout, then one linear layer: (B, num_features) to (B, num_outputs) logits."""

    def __init__(self, num_features: int, task: Task, *, drop_rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_rate)
        self.linear = nn.Linear(num_features, task.num_outputs)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits

    def outputs(self, logits: Tensor) -> Tensor:
        """Compute the answers that the logits stand for, in float32."""
        raise NotImplementedError


class ClassHead(Head):
    """One class per galaxy."""

    def outputs(self, logits: Tensor) -> Tensor:
        """Compute probabilities: (B, C) logits to (B, C), each row summing to 1."""
        return torch.softmax(logits.float(), dim=1)


class VoteHead(Head):
    """The vote fractions of Galaxy Zoo 2, which obey the decision tree whatever the logits are."""

    def __init__(self, num_features: int, task: Task, *, drop_rate: float) -> None:
        super().__init__(num_features, task, drop_rate=drop_rate)
        if task.names != GZ2.columns:
            raise ConfigError(
                f"task: got vote columns {', '.join(task.names[:3])}, ..., expected the "
                f"{len(GZ2.columns)} of the decision tree in its order: convert the survey again"
            )
        self.questions = GZ2.questions

    def outputs(self, logits: Tensor) -> Tensor:
        """Compute cumulative vote fractions: (B, 37) logits to (B, 37).

        Within each question a softmax gives the share of each answer; it is multiplied by the fraction that
        reached the question, the sum over the answers that lead to it. So each question's answers sum to
        the answers before it, as the Kaggle columns do.

        Source:
            Willett et al. 2013, MNRAS 435, 2835, section 3.
        """
        logits = logits.float()
        columns: dict[int, Tensor] = {}
        for question in self.questions:
            shares = torch.softmax(logits[:, question.columns], dim=1)
            if question.parents:
                reached = torch.stack([columns[parent] for parent in question.parents]).sum(dim=0)
                shares = shares * reached.unsqueeze(1)
            columns.update(zip(range(question.columns.start, question.columns.stop), shares.unbind(dim=1), strict=True))
        return torch.stack([columns[index] for index in range(logits.shape[1])], dim=1)


def make_head(num_features: int, task: Task, *, drop_rate: float) -> Head:
    """Make the head for a task.

    Args:
        num_features: length of the backbone's feature vector.
        task: what is asked of a galaxy.
        drop_rate: dropout before the linear layer.

    Raises:
        ConfigError: vote columns other than the decision tree's.
    """
    kind = {"classes": ClassHead, "votes": VoteHead}[task.kind]
    return kind(num_features, task, drop_rate=drop_rate)
