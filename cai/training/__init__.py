"""Training: SFT, reward model, DPO, PPO, GRPO and RLOO on the rows that the stages made.

One file an algorithm under `algorithms/`, found by name, over shared parts: `data` (rows to elements), `batches` and
`losses` (soft labels), `trainers` (TRL's, with those losses), `models`, `lineage`, `runner`. Nothing here reads a
recipe; `cai.train` turns one into a `Job`. torch, transformers and trl are imported late.
"""

import os

# torch reads this with its first tensor. A training step takes and gives back hundreds of MB of logits and activations
# on the processor; in pages of 2 MiB that is a tenth less time than in pages of 4 KiB. Elsewhere it has no effect.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
