"""Where rows come from: files, generated samples, other publishers; and how fast they are let go."""
