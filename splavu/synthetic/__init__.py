"""A synthetic world of acting people, and a small frozen encoder to try the method on without any download.

Its private attributes are drawn independently of the actions, so what a feature leaks about people is never needed to
tell what they do. That is kinder than real data, where the two are entangled (`scene_bias` brings back one such tie).
"""
