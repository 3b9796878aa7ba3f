"""Whether routing is learned from random weights, on small tasks whose answers are known: the tasks,
the models, their training, what is measured, and the lists of runs."""
