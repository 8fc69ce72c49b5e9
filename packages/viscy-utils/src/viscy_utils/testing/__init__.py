"""Commands that are killed, for tests of what they leave behind and how they go on.

* ``viscy_utils.testing.commands``: runs commands, functions and programs in processes forked after the imports.
* ``viscy_utils.testing.faults``: what happens to them: a signal or an error in a step, a kill at the n-th write.
"""
