"""Parts of a project of one's own: a network, a data set and a loss that `conf/` beside it names."""
