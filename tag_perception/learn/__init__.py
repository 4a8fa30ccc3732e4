"""Training on Lightning: experiments, modules, schedules, ImageNet pre-training."""
