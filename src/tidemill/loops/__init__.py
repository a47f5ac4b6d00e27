"""Level-triggered controllers: each looks at what is, compares it with what should be, and does the next step.

Load, decide, apply: a short transaction to read, work without one, a short guarded one to write. Any of them may be
killed at any point and does the same again afterwards. Started and stopped by `bootstrap`.
"""
