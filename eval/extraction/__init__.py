"""How an answer is found in a text: boxes, cues, bare lines, formulas, choice letters.

Nothing is evaluated, and all of it takes time in proportion to the text, whatever the text repeats.
"""
