"""Chapter 7: one training loop for every scale and device.

Read `config` (settings, learning rate, optimizers), `loop`, `batching` (examples of like length), `checkpoints` (resume
to the identical weights), `tracking` (MLflow), `progress` (the progress line), `distributed` (device, number format,
several processes).
"""
