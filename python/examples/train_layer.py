#!/usr/bin/env python3
"""A small transformer learns to repeat itself, then continues a sequence by its layers' caches."""

import torch
from torch import nn

from multistep import Schedule
from multistep.torch import MultiStepAttention

TOKENS, WIDTH, LENGTH, PERIOD = 8, 16, 24, 3


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(3))
        self.layers = nn.ModuleList(
            MultiStepAttention(WIDTH, 2, 1, schedule=Schedule(), rotary=100.0, accumulation=kind)
            for kind in (None, "ema"))
        self.head = nn.Linear(WIDTH, TOKENS)

    def forward(self, tokens, caches=(None, None)):
        x = self.embed(tokens)
        for norm, layer, cache in zip(self.norms, self.layers, caches):
            x = x + layer(norm(x), cache=cache)
        return self.head(self.norms[2](x))


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for step in range(61):
    tokens = torch.randint(TOKENS, (16, PERIOD)).repeat(1, LENGTH // PERIOD)
    loss = nn.functional.cross_entropy(model(tokens)[:, PERIOD - 1 : -1].flatten(0, 1),
                                       tokens[:, PERIOD:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 0:
        print(f"step {step:2}  loss {loss.item():.3f}")
assert loss.item() < 0.5

with torch.no_grad():
    caches = [layer.new_cache(1, LENGTH) for layer in model.layers]
    said = torch.tensor([[5, 1, 6, 5, 1, 6]])
    new = said
    while said.shape[1] < LENGTH:
        new = model(new, caches)[:, -1:].argmax(-1)  # what is new alone
        said = torch.cat([said, new], 1)
    print("continued", *said[0].tolist())
    again = model(said)[:, 5:-1].argmax(-1)
    print("as at once" if torch.equal(again, said[:, 6:]) else "other than at once")
