"""Judge methods, one file each, found by name: `Config` and `build(config, *, models, seed) -> cai.judging.Judge`."""
