# Axes of devices, with sizes from --mesh; one that is not given has one device
# and splits nothing. The layers name them all, so that one model has these
# layouts, and products of them:
#   --mesh dev=8               batch and experts over the same devices, all else
#                              on each (Shazeer et al. 2017)
#   --mesh data=2,expert=4     batch over all, experts over four, twice (GShard)
#   --mesh data=4,model=2      weights of LSTMs, experts and softmax in halves
# A batch names `data` first: rows that go to experts leave the minor axes of
# the tokens, all at once.
mesh dev, data, expert, model
