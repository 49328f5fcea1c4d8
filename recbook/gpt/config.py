"""The shape of a GPT, and what it costs in parameters, memory and arithmetic, on paper.

The tests check every formula against the model: they count tensors, add up bytes and record operations.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a GPT."""

    vocabulary: int  # tokens
    context: int = 256  # positions
    layers: int = 4  # blocks
    heads: int = 4  # attention heads per block
    width: int = 128  # channels of the residual stream
    dropout: float = 0.0  # share of activations dropped in training

    def __post_init__(self) -> None:
        numbers = (self.vocabulary, self.context, self.layers, self.heads, self.width)
        if not all(isinstance(number, int) and number > 0 for number in numbers) or not 0 <= self.dropout < 1:
            raise ValueError(f"sizes are whole numbers above 0, dropout is at least 0 and below 1; got {self}")
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; each head takes an equal part"
            )

    @property
    def parameters(self) -> int:
        """Trainable numbers: embeddings, blocks of 12 C² + 13 C, the last norm. The head is the token embedding."""
        embeddings = (self.vocabulary + self.context) * self.width
        return embeddings + self.layers * (12 * self.width**2 + 13 * self.width) + 2 * self.width

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token: 6 per weight that multiplies, and attention's 12 L C T.

        Chowdhery et al. (2022), appendix B. Forward alone is a third.
        """
        weights = self.vocabulary * self.width + 12 * self.layers * self.width**2  # the head, and the blocks' matrices
        return 6 * weights + 12 * self.layers * self.width * self.context

    def training_bytes(self, optimizer_states: int = 2) -> int:
        """Bytes of weights, gradients and the optimizer's states in float32; activations come on top."""
        return 4 * self.parameters * (2 + optimizer_states)

    def cache_bytes(self, batch: int = 1, positions: int = 0, bytes_a_number: int = 4) -> int:
        """Bytes of the keys and values that generation keeps, for `positions` (0: the whole context) of every row."""
        return 2 * self.layers * batch * (positions or self.context) * self.width * bytes_a_number


GPT_PRESETS = {  # RECBOOK_SCALE -> everything but the vocabulary
    "laptop": dict(context=128, layers=4, heads=4, width=128),
    "colab": dict(context=256, layers=6, heads=6, width=384),
    "full": dict(context=512, layers=8, heads=8, width=512),
}
