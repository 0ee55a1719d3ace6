"""A synthetic world of acting people, and a small frozen encoder to try the method on without any download.

Its private attributes are drawn independently of the actions, so private information is never needed to recognise an
action. Real data are harder: there the two are entangled (`scene_bias` adds one such dependence).
"""
