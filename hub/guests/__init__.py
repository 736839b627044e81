"""Files of SB3, RL Zoo and huggingface_sb3, read without unpickling.

:mod:`hub.rl_zoo` is the way in.
"""
