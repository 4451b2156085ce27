"""``lmk ci``: a matrix of configs, scenarios, policies and kernels, judged by expectations and a committed baseline."""
