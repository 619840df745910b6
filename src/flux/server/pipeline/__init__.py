"""From rows taken in to rows committed and published: the loop, the committer and what they pass on."""
