"""How the programs of this folder talk with the one that times them: a command a line on standard input, and for each
one answer a line on standard output,

    12.5             the milliseconds that it took, or
    cannot REASON    a sentence, where it cannot be done;

before an answer there may be any number of

    note TEXT        for the report, beside the row
    doing TEXT       what takes so long
    compiled MS      what compiling took, which is in no answer.

"quit", and the end of the input, end the program. Whatever else prints to standard output (code of other people, a
compiler) goes to standard error.
"""
import os
import sys


class Cannot(Exception):
    """The reason as a sentence."""


class Answers:
    def __init__(self):
        self.out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def say(self, word, text):
        self.out.write(f"{word} {' '.join(str(text).split())}\n")

    def note(self, text):
        self.say("note", text)

    def doing(self, text):
        self.say("doing", text)

    def compiled(self, ms):
        self.say("compiled", ms)


def serve(answers, commands):
    """`commands`: the functions that take a command's words and return milliseconds."""
    for line in sys.stdin:
        words = line.split()
        if not words:
            continue
        if words[0] == "quit":
            return
        try:
            if words[0] not in commands:
                raise Cannot(f'There is no command "{words[0]}" here.')
            ms = float(commands[words[0]](*words[1:]))
        except Cannot as reason:
            answers.say("cannot", reason)
        except Exception as error:  # of PyTorch or of other people's code: the sentence says whose words they are
            answers.say("cannot", f"It failed with {type(error).__name__}: {str(error)[:400]}")
        else:
            answers.out.write(f"{ms}\n")
