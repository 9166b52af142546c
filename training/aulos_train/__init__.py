# SPDX-License-Identifier: MIT
"""What the commands of training/ are made of: composer, renderers, data sets, codec, language model, measures."""
