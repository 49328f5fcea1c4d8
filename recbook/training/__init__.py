"""Chapter 7: the one training loop for every scale and device.

Read `config` (settings, learning rate, optimizers), `loop`, `checkpoints` (resume as if never stopped), `tracking`
(MLflow), `progress` (what the one who waits sees), `distributed` (device, number format, several processes).
"""
