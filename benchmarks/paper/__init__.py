"""The paper's comparison: the same prompt in every way there is, with its memory and its time."""
