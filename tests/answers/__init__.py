"""Answers to the exercises, right and wrong, on which the checks are tested.

One module an exercise, named as its check. An answer is what the check takes (a tuple where it
takes several things).

RIGHT     three or more, in different styles: all must pass
WRONG     {name of the mistake: [answers]}: all must fail, under that very name
UNKNOWN   wrong in an unfamiliar way: all must fail, and without a name

Wrong answers are five or more in all where the answer is a formula, three or more elsewhere.
"""
