"""The progress of a training run: a bar in a terminal, one line in a notebook, nothing in a log."""

import time
from typing import Any


class ProgressLine:
    """Step, loss, tokens per second and time left. `show=False` shows nothing; neither does output to a file.

    In a terminal it is a `tqdm` bar on stderr. In a notebook it is one line that changes in place, so the notebook that
    is saved holds its last state and nothing else.
    """

    def __init__(self, start: int, steps: int, show: bool = True):
        self.start, self.steps, self.show = start, steps, show
        self.line, self.bar, self.handle = "", None, None
        self.begun: float | None = None  # when the first step was over: compiling and warming up are no guide
        self.shown, self.tokens, self.first = 0.0, 0, start
        if show and not in_notebook():
            from tqdm import tqdm

            self.bar = tqdm(initial=start, total=steps, unit="step", disable=None, mininterval=1.0)

    def update(self, step: int, loss: float, tokens: int) -> None:
        """Report a finished step: its number, its loss, the tokens that it read."""
        now = time.perf_counter()
        if self.begun is None:
            self.begun, self.first, tokens = now, step, 0
        self.tokens += tokens
        self.line = describe_step(step, self.steps, loss, self.tokens, step - self.first, now - self.begun)
        if self.bar is not None:
            self.bar.set_postfix_str(self.line.split(" · ", 1)[1], refresh=False)
            self.bar.update(1)
        elif self.show and now - self.shown > 0.5:
            self._draw()
            self.shown = now

    def write(self, text: str) -> None:
        """Print a text, above the bar where there is one."""
        if self.bar is not None:
            self.bar.write(text)
        elif self.show:
            print(text)

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self.bar is not None:
            self.bar.close()
        elif self.show and self.line:
            self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        content: dict[str, Any] = {"text/plain": self.line}
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


def describe_step(step: int, steps: int, loss: float, tokens: int, done: int, seconds: float) -> str:
    """The line of a step, from the tokens and steps of the last `seconds`."""
    parts = [f"step {step:,} of {steps:,}", f"loss {loss:.3f}"]
    if done and seconds > 0:
        left = (steps - step) * seconds / done
        parts += [f"{tokens / seconds:,.0f} tokens/s", f"{clock(left)} left" if step < steps else clock(seconds)]
    return " · ".join(parts)


def clock(seconds: float) -> str:
    """Seconds in readable units: 48 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
