"""The modes of the load generator, a module each: the parent's side of a run."""
