"""Checks of chapter 16: soft targets, a teacher's confidence, the divergence of lists, the share of the gap closed."""

import numpy as np

from recbook.book.exercises import Exercise, Mistake

# 16.1: soft targets


def soft_targets(scores, temperature):
    """Scores of one list as probabilities that sum to one; a score of minus infinity gets zero."""
    scores = np.asarray(scores, float) / temperature
    shares = np.exp(scores - scores.max())
    return shares / shares.sum()


def _multiplied(scores, temperature):
    return soft_targets(np.asarray(scores, float) * temperature, 1.0)


def _not_divided(scores, temperature):
    return soft_targets(scores, 1.0)


def _divided_afterwards(scores, temperature):
    shares = soft_targets(scores, 1.0) / temperature
    return shares


def _overflows(scores, temperature):
    with np.errstate(over="ignore", invalid="ignore"):
        shares = np.exp(np.asarray(scores, float) / temperature)
        return shares / shares.sum()


# 16.2: a teacher's confidence


def confidence(chances):
    """One less the entropy of a list as a share of the largest; zeros are places that the list lacks."""
    some = np.asarray([chance for chance in chances if chance > 0], float)
    if len(some) == 1:
        return 1.0
    return float(1 + (some * np.log(some)).sum() / np.log(len(some)))


def _entropy_itself(chances):
    return 1.0 - confidence(chances)


def _largest_chance(chances):
    return float(max(chances))


def _of_all_places(chances):
    some = np.asarray([chance for chance in chances if chance > 0], float)
    return float(1 + (some * np.log(some)).sum() / np.log(len(chances)))


def _not_a_share(chances):
    some = np.asarray([chance for chance in chances if chance > 0], float)
    return float(1 + (some * np.log(some)).sum())


# 16.3: the divergence of a student's list from the teacher's


def divergence(logits, listed, chances):
    """The KL divergence, in nats, of a student with a softmax over all products from a teacher's list."""
    logits, chances = np.asarray(logits, float), np.asarray(chances, float)
    logs = logits - logits.max()
    logs = (logs - np.log(np.exp(logs).sum()))[listed]
    some = chances > 0
    return float((chances[some] * (np.log(chances[some]) - logs[some])).sum())


def _among_the_list(logits, listed, chances):
    return divergence(np.asarray(logits, float)[listed], list(range(len(listed))), chances)


def _cross_entropy(logits, listed, chances):
    chances = np.asarray(chances, float)
    some = chances[chances > 0]
    return divergence(logits, listed, chances) - float((some * np.log(some)).sum())


def _the_other_way_round(logits, listed, chances):
    logits, chances = np.asarray(logits, float), np.asarray(chances, float)
    student = np.exp(logits - logits.max())
    student, some = (student / student.sum())[listed], chances > 0
    return float((student[some] * np.log(student[some] / chances[some])).sum())


def _halves_of_the_logits(logits, listed, chances):
    return divergence(np.asarray(logits, float) / 2, listed, chances)


# 16.4: the share of the gap that is closed


def share_closed(alone, taught, teacher, least):
    """Of the mean gap between the teacher and the student alone, the share that teaching closes; nan of a small gap."""
    gap = np.mean(teacher) - np.mean(alone)
    return float((np.mean(taught) - np.mean(alone)) / gap) if gap >= least else float("nan")


def _share_of_the_teacher(alone, taught, teacher, least):
    return float(np.mean(taught) / np.mean(teacher))


def _small_gaps_too(alone, taught, teacher, least):
    return float((np.mean(taught) - np.mean(alone)) / (np.mean(teacher) - np.mean(alone)))


def _what_is_left_open(alone, taught, teacher, least):
    return 1.0 - share_closed(alone, taught, teacher, least)


def _size_of_the_gap_without_its_sign(alone, taught, teacher, least):
    gap = np.mean(teacher) - np.mean(alone)
    return float((np.mean(taught) - np.mean(alone)) / gap) if abs(gap) >= least else float("nan")


EXERCISES = [
    Exercise(
        "16.1",
        soft_targets,
        [
            ([2.0, 1.0, 0.0], 1.0),
            ([2.0, 1.0, 0.0, -np.inf], 4.0),
            ([1500.0, 1498.0, 1400.0], 0.5),
            ([-3.0], 2.0),
        ],
        [
            Mistake(_multiplied, "divide by the temperature: the hotter, the flatter the list."),
            Mistake(_not_divided, "the temperature is not used: divide the scores by it."),
            Mistake(_divided_afterwards, "divide the scores, not the chances: these no longer sum to one."),
            Mistake(_overflows, "exp of a large score is infinite: take the largest off all of them first."),
        ],
    ),
    Exercise(
        "16.2",
        confidence,
        [
            ([0.7, 0.2, 0.1],),
            ([0.25, 0.25, 0.25, 0.25],),
            ([0.5, 0.5, 0.0, 0.0],),
            ([0.9, 0.05, 0.05, 0.0],),
        ],
        [
            Mistake(_entropy_itself, "that is how unsure it is: take it from one."),
            Mistake(_largest_chance, "the largest chance looks at the first place alone: take the entropy of all."),
            Mistake(_of_all_places, "a chance of zero is a place that the list lacks: count the others alone."),
            Mistake(
                _not_a_share, "divide the entropy by the largest there could be, the log of how many are on the list."
            ),
        ],
    ),
    Exercise(
        "16.3",
        divergence,
        [
            ([2.0, 0.5, 0.0, 1.0, -1.0], [3, 0], [0.6, 0.4]),
            ([0.0, 0.0, 0.0, 0.0], [1, 2, 0], [0.5, 0.5, 0.0]),
            ([1200.0, 1199.0, 1190.0], [1, 0], [0.9, 0.1]),
            ([-1.0, 2.0, 0.3], [0, 1, 2], [0.2, 0.5, 0.3]),
        ],
        [
            Mistake(_among_the_list, "the student's softmax goes over all products: what is not listed must lose."),
            Mistake(_cross_entropy, "the teacher's own log-chances are missing: equal lists must give zero."),
            Mistake(_the_other_way_round, "the teacher's chances are the weights of the sum, not the student's."),
            Mistake(_halves_of_the_logits, "the temperature is the teacher's: leave the student's logits as they are."),
        ],
    ),
    Exercise(
        "16.4",
        share_closed,
        [
            ([0.2, 0.4, 0.0], [0.3, 0.4, 0.1], [0.5, 0.4, 0.3], 0.005),
            ([0.30, 0.32], [0.33, 0.34], [0.312, 0.31], 0.005),
            ([0.5, 0.3], [0.35, 0.25], [0.3, 0.2], 0.01),
            ([0.1, 0.1], [0.05, 0.05], [0.3, 0.3], 0.01),
        ],
        [
            Mistake(_share_of_the_teacher, "that is the share of the teacher that the student keeps, not of the gap."),
            Mistake(_small_gaps_too, "a gap below `least` is no gap to close: return nan."),
            Mistake(_what_is_left_open, "that is the share which is still open."),
            Mistake(
                _size_of_the_gap_without_its_sign, "the student alone beats this teacher: there is no gap, return nan."
            ),
        ],
    ),
]
