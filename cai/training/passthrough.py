"""What a `trl:` block cannot say: what the settings say, and what is without effect behind our losses and data.

A key that TRL takes and nobody reads is worse than one that it does not know: the training looks as asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from cai.errors import InputError

OURS = ("output_dir", "resume_from_checkpoint", "seed", "hub_token", "push_to_hub", "logging_nan_inf_filter")

SETTING = {  # TRL's name: ours, refused where the algorithm has that setting
    "num_train_epochs": ("epochs",),
    "max_steps": ("max_steps", "steps"),
    "per_device_train_batch_size": ("micro_batch",),
    "gradient_accumulation_steps": ("batch",),
    "learning_rate": ("learning_rate",),
    "max_length": ("max_length",),
    "lr_scheduler_type": ("schedule",),
    "save_steps": ("save_every",),
    "bf16": ("dtype",),
    "fp16": ("dtype",),
    "beta": ("beta",),
    "num_generations": ("samples_per_prompt",),
    "max_completion_length": ("max_new_tokens",),
    "temperature": ("temperature",),
}

# The model, its tokenizer and the tokens are ours by the time TRL sees them.
_DATA = (
    "chat_template_path",
    "dataset_num_proc",
    "eos_token",
    "pad_token",
    "pad_to_multiple_of",
    "model_init_kwargs",
    "trust_remote_code",
    "truncation_mode",
    "padding_free",
)
# Nothing is held out for TRL to look at: a reward model has its report, the online ones are watched.
_EVALUATION = (
    "eval_strategy",
    "eval_steps",
    "eval_delay",
    "eval_on_start",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
)
_LOSS = ("label_smoothing_factor", "router_aux_loss_coef")
WITHOUT_EFFECT: Mapping[str, tuple[str, ...]] = {
    "sft": (
        *(key for key in _DATA if key not in ("padding_free", "pad_to_multiple_of")),
        "dataset_kwargs",
        "dataset_text_field",
        "packing",
        "packing_strategy",
        "eval_packing",
        "shuffle_dataset",
        "assistant_only_loss",
        "completion_only_loss",
    ),
    "rm": (*_DATA, *_LOSS, *_EVALUATION),
    "grpo": _EVALUATION,
    "rloo": _EVALUATION,
    "dpo": (
        *_DATA,
        *_LOSS,
        "loss_type",
        "loss_weights",
        "label_smoothing",
        "ld_alpha",
        "f_divergence_type",
        "f_alpha_divergence_coef",
        "use_weighting",
        "discopop_tau",
        "use_liger_kernel",
        "precompute_ref_log_probs",
        "sync_ref_model",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
    ),
}

FREE = frozenset(  # of settings and of `trl:`: they change memory, speed or reports, not what is learnt
    {
        "micro_batch",
        "save_every",
        "report_to",
        "run_name",
        "project",
        "logging_steps",
        "logging_first_step",
        "save_total_limit",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "activation_offloading",
        "torch_empty_cache_steps",
        "dataloader_num_workers",
        "dataloader_pin_memory",
    }
)


def check_block(block: Mapping[str, Any], algorithm: str, settings: Collection[str]) -> None:
    """A `trl:` block whose every key has an effect.

    Args:
        settings: names of the algorithm's own.

    Raises:
        InputError: a key is ours, is said by a setting, or would be ignored.
    """
    where = f"train.{algorithm}.trl"
    for key in block:
        if key in OURS:
            raise InputError(f"{key} is set by cai", where=where, mend="leave it out")
        said = next((name for name in SETTING.get(key, ()) if name in settings), "")
        if said:
            raise InputError(f"{key} is said by settings", where=where, mend=f"set train.{algorithm}.settings.{said}")
        if key in WITHOUT_EFFECT.get(algorithm, ()):
            raise InputError(f"{key} has no effect on {algorithm} here", where=where, mend="leave it out")


def bound(given: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings or a `trl:` block, what a begun training cannot change."""
    return {key: value for key, value in given.items() if key not in FREE}
