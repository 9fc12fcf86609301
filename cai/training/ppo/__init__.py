"""Proximal policy optimisation against a reward, with a KL penalty to where it began; our own loop on accelerate.

Schulman et al. 2017 (arXiv 1707.06347) as used on language models by Ziegler et al. 2019 (arXiv 1909.08593), Stiennon
et al. 2020 (2009.01325) and Bai et al. 2022 (2204.05862). The mathematics is in `advantages`, `losses` and `kl`, pure
functions on tensors; `parts` are the models, `buffer` what a rollout leaves behind, `state` what a killed run resumes
from, and `loop` tells the story.
"""
