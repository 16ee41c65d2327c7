"""DINOv2 self-supervision: model, losses, schedule, loop, checkpoints, export."""
