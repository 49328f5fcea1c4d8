"""Train the `full`-size GPT for a few steps on two cores: too few to be good, enough to have a perplexity to lose.

    RECBOOK_SCALE=full python benchmarks/quantization/full_model.py --data online-retail --model FOLDER

writes a model that `checkpoints.load_gpt` reads, which benchmarks/quantization.py then shrinks. About a quarter of an
hour and 4 GB on two cores. `--data`: what `RECBOOK_DATA` takes, or `embedded`.
"""

import argparse
import os

from recbook.book import workshop
from recbook.gpt.config import GPT_PRESETS, GPTConfig
from recbook.gpt.model import GPT
from recbook.tokens.files import TokenWindows
from recbook.training import checkpoints
from recbook.training.config import TrainingConfig
from recbook.training.loop import train, validation_loss

STEPS, BATCH = 220, 8
RATES = dict(learning_rate=0.003, matrix_learning_rate=0.02)


def main() -> None:
    """Train and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="what RECBOOK_DATA takes, or embedded")
    parser.add_argument("--model", required=True, help="the folder for the model")
    arguments = parser.parse_args()
    if arguments.data != "embedded":
        os.environ["RECBOOK_DATA"] = arguments.data
    os.environ["RECBOOK_SCALE"] = "full"
    learn, judge = workshop.token_files()
    model = GPT(GPTConfig(len(workshop.vocabulary()), **GPT_PRESETS["full"]), seed=workshop.SEED)
    settings = TrainingConfig(
        steps=STEPS, batch=BATCH, warmup=20, evaluate_every=20, save_every=STEPS, seed=workshop.SEED, **RATES
    )
    some = TokenWindows(judge[: 16 * model.config.context + 1], model.config.context)
    train(
        model,
        TokenWindows(learn, model.config.context),
        settings,
        validate=lambda model: validation_loss(model, some, size=8),
        track=lambda figures: print(figures, flush=True),
        progress=False,
    )
    print(f"model: {checkpoints.save_gpt(model, arguments.model)}")


if __name__ == "__main__":
    main()
