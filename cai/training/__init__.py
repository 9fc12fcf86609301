"""Training: SFT, reward model, DPO, PPO, GRPO and RLOO on the rows that the stages made.

One file an algorithm under `algorithms/`, found by name, over shared parts: `data` (rows to elements), `batches` and
`losses` (soft labels), `trainers` (TRL's, with those losses), `models`, `lineage`, `runner`. Nothing here reads a
recipe; `cai.train` turns one into a `Job`. torch, transformers and trl are imported late.
"""
