"""What the models of the studies are made of."""

from torch import nn


class Block(nn.Module):
    """Attention and a perceptron, each beside the residual."""

    def __init__(self, width, attention):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = attention
        self.perceptron = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width),
                                        nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm(x))
        return x + self.perceptron(x)
