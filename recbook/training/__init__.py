"""Chapter 7: one training loop for every scale and device.

Read `config` (settings, learning rate, optimizers), `loop`, `batching` (examples of like length), `checkpoints` (resume
to the identical weights), `tracking` (MLflow), `progress` (the progress line), `distributed` (device, number format,
several processes).

Results are the same bit for bit only with the same number of threads and of processes: sums in another order round
differently.
"""
